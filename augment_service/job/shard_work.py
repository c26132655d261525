"""The rows of a shard: cut from the input by position alone, in order, as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from augment_service.config import RunConfig
from augment_service.job.poison import DEATHS_OF_A_ROW
from shared.inputs.rows import QuarantinedRow, SourceRow
from shared.inputs.sources import Source, read_rows


@dataclass(eq=False, slots=True)
class ShardWork:
    """Rows of one shard, and those of its places that hold a row in quarantine. `shard_rows`: places per shard."""

    shard: int
    shard_rows: int
    rows: list[SourceRow] = field(default_factory=list)
    quarantined: list[QuarantinedRow] = field(default_factory=list)

    @property
    def num_rows(self) -> int:
        """Rows that the engine gets."""
        return len(self.rows)

    def without(self, poison: set[int]) -> ShardWork:
        """The same shard with these of its rows (by index) in quarantine."""
        reason = f"the worker process died on it, alone, {DEATHS_OF_A_ROW} times"
        places = positions(self.shard, self.shard_rows, self.quarantined)
        found = [quarantine(self.rows[index], places[index], reason) for index in sorted(poison)]
        kept = [row for index, row in enumerate(self.rows) if index not in poison]
        return ShardWork(self.shard, self.shard_rows, kept, self.quarantined + found)


def shard_work(source: Source, config: RunConfig, missing: set[int]) -> Iterator[ShardWork]:
    """Work of the missing shards, in order, read from the input as it is asked for."""
    work: ShardWork | None = None
    for position, item in enumerate(read_rows(source, config)):
        shard = position // config.shard_rows
        if work is None or work.shard != shard:
            if work is not None and work.shard in missing:
                yield work
            work = ShardWork(shard, config.shard_rows)
        if shard in missing:
            if isinstance(item, SourceRow):
                work.rows.append(item)
            else:
                work.quarantined.append(item)
    if work is not None and work.shard in missing:
        yield work


def positions(shard: int, shard_rows: int, quarantined: Sequence[QuarantinedRow]) -> list[int]:
    """Places in the input of a shard's rows that are not in quarantine, in order (the last shard may have fewer)."""
    taken = {one.position for one in quarantined}
    return [place for place in range(shard * shard_rows, (shard + 1) * shard_rows) if place not in taken]


def quarantine(row: SourceRow, position: int, reason: str) -> QuarantinedRow:
    """A row that could be read but not worked on."""
    return QuarantinedRow(position, f"source {row.source_id}", reason, row.text_a[:2000])
