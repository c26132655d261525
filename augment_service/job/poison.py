"""Finds the rows that kill their process (pure): a shard is tried in ever smaller parts, on actors that may die.

A part that survives is cleared. A part that dies is split into eight. A single row that dies three times is poison if
another part of the shard survived in the meantime: if everything dies, the rows are not to blame. Deaths with other
causes (a preempted node, a chaos test) cost a few retries but convict no row, since one row takes only a moment. Eight
parts rather than two, because a death costs an actor start and a survivor only its compute time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

PARTS = 8
DEATHS_OF_A_ROW = 3


@dataclass(slots=True)
class PoisonHunt:
    """The search in one shard of `num_rows` rows.

    Try each `next_part` and report `survived`, `died` or `put_back`; once `is_done`, `poison` has the indices.
    """

    num_rows: int
    poison: set[int] = field(default_factory=set)
    _todo: deque[range] = field(default_factory=deque)
    _in_flight: set[range] = field(default_factory=set)
    _deaths: dict[range, int] = field(default_factory=dict)
    _survivals: int = 0
    _survivals_before: dict[range, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._cut(range(self.num_rows))

    def next_part(self) -> range | None:
        """Indices of the rows to try now, or None while all remaining parts are being tried."""
        if not self._todo:
            return None
        part = self._todo.popleft()
        self._in_flight.add(part)
        return part

    def survived(self, part: range) -> None:
        """No row of the part is poison."""
        self._in_flight.discard(part)
        self._survivals += 1

    def died(self, part: range) -> None:
        """The process died while working on the part."""
        self._in_flight.discard(part)
        if len(part) > 1:
            self._cut(part)
            return
        self._deaths[part] = self._deaths.get(part, 0) + 1
        survivals = self._survivals_before.setdefault(part, self._survivals)
        is_last = not self._todo and not self._in_flight
        if self._deaths[part] < DEATHS_OF_A_ROW:
            self._todo.appendleft(part)
        elif self._survivals > survivals or is_last:
            self.poison.add(part.start)
        else:
            self._todo.append(part)

    def put_back(self, part: range) -> None:
        """The part was not tried after all: its actor died for another reason."""
        self._in_flight.discard(part)
        self._todo.appendleft(part)

    @property
    def has_parts(self) -> bool:
        """Whether a part is waiting for an actor."""
        return bool(self._todo)

    @property
    def is_done(self) -> bool:
        """Whether every row has been tried."""
        return not self._todo and not self._in_flight

    def _cut(self, part: range) -> None:
        step = max(-(-len(part) // PARTS), 1)
        self._todo.extend(part[start : start + step] for start in range(0, len(part), step))
