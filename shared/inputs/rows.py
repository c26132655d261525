"""What comes out of the input: rows that can be worked on, and rows that cannot, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One input example. `source_id` is its 0-based place among the data rows, or the value of --id-column."""

    source_id: int
    text_a: str
    text_b: str | None = None
    label: Any = None
    rest: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """A row that was left out: its place, why, and its raw content (bytes that are no UTF-8 as \\xNN)."""

    position: int
    where: str
    reason: str
    raw: str
