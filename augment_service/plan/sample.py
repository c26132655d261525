"""The sample that a plan measures: some whole shards of the input."""

from __future__ import annotations

import random
from dataclasses import dataclass

from augment_service.config import PlanConfig
from shared.errors import InputError
from shared.inputs.rows import SourceRow
from shared.inputs.sources import Source

COUNTED_ROWS = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Some whole shards of the input: the usable rows of each, and its number of rows including unusable ones."""

    shards: list[list[SourceRow]]
    positions_of: list[int]

    @property
    def positions(self) -> int:
        """Rows of all these shards, including unusable ones."""
        return sum(self.positions_of)

    @property
    def quarantined(self) -> int:
        """Unusable rows."""
        return self.positions - sum(map(len, self.shards))


def draw_sample(source: Source, config: PlanConfig) -> Sample:
    """Draw whole shards at random, the same ones every time. Raises InputError if none of their rows is usable."""
    num_shards = -(-source.num_rows // config.shard_rows)
    wanted = min(max(COUNTED_ROWS // config.shard_rows, 4), num_shards)
    chosen = {shard: place for place, shard in enumerate(sorted(random.Random(0).sample(range(num_shards), wanted)))}
    shards: list[list[SourceRow]] = [[] for _ in chosen]
    positions_of = [0] * len(chosen)
    for position, item in enumerate(source.rows()):
        place = chosen.get(position // config.shard_rows)
        if place is not None:
            positions_of[place] += 1
            if isinstance(item, SourceRow):
                shards[place].append(item)
    if not any(shards):
        raise InputError(f"all {sum(positions_of)} sampled rows are unusable; `run` would quarantine them")
    return Sample(shards=shards, positions_of=positions_of)
