"""Finding the rows that kill their process (pure): a shard is tried in ever smaller parts, on actors that may die.

A part that survives is innocent; a part that dies is cut in eight; one row that dies three times is poison, if another
part of the shard survived in the meantime: where everything dies, the rows are not to blame. Other deaths (a node that
is taken back, a chaos test) cost a few tries and accuse nobody, since one row is tried for a moment only.
Eight parts rather than two: a death costs an actor's start, a survivor only its compute time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

PARTS = 8
DEATHS_OF_A_ROW = 3


@dataclass(slots=True)
class PoisonHunt:
    """The search in one shard of `num_rows`: ask `next_part`, report `survived` or `died`, read `poison` when done."""

    num_rows: int
    poison: set[int] = field(default_factory=set)
    _todo: deque[tuple[int, int]] = field(default_factory=deque)
    _out: set[tuple[int, int]] = field(default_factory=set)
    _deaths: dict[tuple[int, int], int] = field(default_factory=dict)
    _survivals: int = 0
    _survivals_before: dict[tuple[int, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._cut(0, self.num_rows)

    def next_part(self) -> tuple[int, int] | None:
        """Rows [first, last) to try now, or None when all that are left are being tried."""
        if not self._todo:
            return None
        part = self._todo.popleft()
        self._out.add(part)
        return part

    def survived(self, part: tuple[int, int]) -> None:
        """No row of the part is poison."""
        self._out.discard(part)
        self._survivals += 1

    def died(self, part: tuple[int, int]) -> None:
        """The process died on the part."""
        self._out.discard(part)
        first, last = part
        if last - first > 1:
            self._cut(first, last)
            return
        self._deaths[part] = self._deaths.get(part, 0) + 1
        survivals = self._survivals_before.setdefault(part, self._survivals)
        is_last = not self._todo and not self._out
        if self._deaths[part] < DEATHS_OF_A_ROW:
            self._todo.appendleft(part)
        elif self._survivals > survivals or is_last:
            self.poison.add(first)
        else:
            self._todo.append(part)

    def put_back(self, part: tuple[int, int]) -> None:
        """The part was not tried after all: its actor died on something else."""
        self._out.discard(part)
        self._todo.appendleft(part)

    @property
    def has_parts(self) -> bool:
        """Whether a part waits for an actor."""
        return bool(self._todo)

    @property
    def is_done(self) -> bool:
        """Whether every row was tried."""
        return not self._todo and not self._out

    def _cut(self, first: int, last: int) -> None:
        step = max(-(-(last - first) // PARTS), 1)
        self._todo.extend((start, min(start + step, last)) for start in range(first, last, step))
