"""Totals over the commits of a job: the figures of `run`, `status` and `verify`, and the content of `_SUCCESS`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from shared.shards import Commit


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over shards.

    rows: source rows that were used; samples: augmented examples, without the sources themselves.
    share_replaced: replaced words per replaceable word; share_by_glove: share of the replaced words.
    bytes: size of the shard files.
    """

    shards: int = 0
    rows: int = 0
    quarantined: int = 0
    samples: int = 0
    share_replaced: float = 0.0
    share_by_glove: float = 0.0
    bytes: int = 0


def total(commits: Iterable[Commit]) -> Totals:
    """Totals of the commits, which are consumed one by one."""
    shards = rows = quarantined = num_bytes = 0
    samples = replaceable = by_mlm = by_glove = 0.0
    for commit in commits:
        shards += 1
        rows += commit.sources
        quarantined += commit.quarantined
        num_bytes += commit.num_bytes
        samples += commit.statistics.get("samples", 0)
        replaceable += commit.statistics.get("replaceable_words", 0)
        by_mlm += commit.statistics.get("replaced_by_mlm", 0)
        by_glove += commit.statistics.get("replaced_by_glove", 0)
    replaced = by_mlm + by_glove
    return Totals(
        shards=shards,
        rows=rows,
        quarantined=quarantined,
        samples=int(samples),
        share_replaced=round(replaced / max(replaceable, 1), 4),
        share_by_glove=round(by_glove / max(replaced, 1), 4),
        bytes=num_bytes,
    )
