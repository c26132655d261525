"""The rows of each shard: split by position alone, in order, and read lazily."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from augment_service.job.poison import DEATHS_OF_A_ROW
from shared.inputs.rows import QuarantinedRow, SourceRow
from shared.inputs.sources import Source
from shared.schema import candidates_schema, samples_schema


@dataclass(eq=False, slots=True)
class ShardWork:
    """The usable and the quarantined rows of one shard. `shard_rows`: input rows per shard, of both kinds."""

    shard: int
    shard_rows: int
    rows: list[SourceRow] = field(default_factory=list)
    quarantined: list[QuarantinedRow] = field(default_factory=list)

    @property
    def num_rows(self) -> int:
        """Rows that go to the engine."""
        return len(self.rows)

    def without(self, poison: set[int]) -> ShardWork:
        """The same shard with these rows (by index) moved to quarantine."""
        reason = f"the worker process died {DEATHS_OF_A_ROW} times on this row alone"
        places = positions(self.shard, self.shard_rows, self.quarantined)
        found = [quarantine(self.rows[index], places[index], reason) for index in sorted(poison)]
        kept = [row for index, row in enumerate(self.rows) if index not in poison]
        return ShardWork(self.shard, self.shard_rows, kept, self.quarantined + found)


def shard_schema(source: Source, emit: str) -> pa.Schema:
    """Columns of the shards of an input; `emit`: samples or candidates."""
    make_schema = candidates_schema if emit == "candidates" else samples_schema
    return make_schema(source.label_type, list(source.rest_fields))


def shard_work(source: Source, shard_rows: int, missing: set[int]) -> Iterator[ShardWork]:
    """The work of the missing shards, in order; reads the input lazily."""
    work: ShardWork | None = None
    for position, item in enumerate(source.rows()):
        shard = position // shard_rows
        if work is None or work.shard != shard:
            if work is not None and work.shard in missing:
                yield work
            work = ShardWork(shard, shard_rows)
        if shard in missing:
            if isinstance(item, SourceRow):
                work.rows.append(item)
            else:
                work.quarantined.append(item)
    if work is not None and work.shard in missing:
        yield work


def positions(shard: int, shard_rows: int, quarantined: Sequence[QuarantinedRow]) -> list[int]:
    """Input positions of a shard's rows that are not quarantined, in order (the last shard may have fewer)."""
    taken = {one.position for one in quarantined}
    return [position for position in range(shard * shard_rows, (shard + 1) * shard_rows) if position not in taken]


def quarantine(row: SourceRow, position: int, reason: str) -> QuarantinedRow:
    """The quarantine record of a row that could be read but not processed."""
    return QuarantinedRow(position, f"source {row.source_id}", reason, row.text_a[:2000])
