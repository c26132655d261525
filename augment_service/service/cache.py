"""A least-recently-used cache of candidates, limited in bytes.

Candidates do not depend on seed, N_a or P_t, so a cached text needs no model pass whatever their values.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass(slots=True)
class ByteLru(Generic[Value]):
    """`num_bytes` never exceeds `max_bytes`; a value larger than `max_bytes` is not stored."""

    max_bytes: int
    num_bytes: int = 0
    _entries: OrderedDict[object, tuple[Value, int]] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: object) -> Value | None:
        """The value, marked as most recently used; None on a miss."""
        found = self._entries.get(key)
        if found is None:
            return None
        self._entries.move_to_end(key)
        return found[0]

    def put(self, key: object, value: Value, num_bytes: int) -> None:
        """Store a value of about `num_bytes`, evicting the least recently used ones until all fit."""
        if num_bytes > self.max_bytes:
            return
        old = self._entries.pop(key, None)
        self.num_bytes += num_bytes - (old[1] if old else 0)
        self._entries[key] = (value, num_bytes)
        while self.num_bytes > self.max_bytes:
            _, (_, freed) = self._entries.popitem(last=False)
            self.num_bytes -= freed
