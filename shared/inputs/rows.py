"""Rows read from the input: usable ones, and quarantined ones with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One input example. source_id: its 0-based position among the data rows, or its --id-column value."""

    source_id: int
    text_a: str
    text_b: str | None = None
    label: Any = None
    rest: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """A rejected row: its position, the reason, and its raw content (invalid UTF-8 as \\xNN)."""

    position: int
    where: str
    reason: str
    raw: str
