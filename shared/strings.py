"""Interned strings as integers, so that whole shards of words can be compared and mapped as arrays.

Properties of a string (its folded form, its capitals) are computed lazily, once per distinct string.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

_UNKNOWN = -1


class Strings:
    """Distinct strings, numbered in insertion order. Not thread-safe."""

    def __init__(self) -> None:
        self.values: list[str] = []
        self._number: dict[str, int] = {}
        self._maps: dict[object, Ints] = {}

    def __len__(self) -> int:
        return len(self.values)

    def number(self, value: str) -> int:
        """The number of a string; adds it if it is new."""
        found = self._number.setdefault(value, len(self.values))
        if found == len(self.values):
            self.values.append(value)
        return found

    def numbers(self, values: Iterable[str]) -> Ints:
        """The numbers of several strings."""
        return np.asarray([self.number(value) for value in values], np.int64)

    def map(self, key: object, function: Callable[[str], str], numbers: Ints) -> Ints:
        """Apply `function` to each string and return the results' numbers; any shape. `key` identifies the function."""
        return self._look_up(key, lambda value: self.number(function(value)), numbers)

    def test(self, key: object, function: Callable[[str], bool], numbers: Ints) -> NDArray[np.bool_]:
        """Apply the predicate `function` to each string; any shape. `key` identifies the function."""
        found: NDArray[np.bool_] = self._look_up(key, lambda value: int(function(value)), numbers) == 1
        return found

    def _look_up(self, key: object, function: Callable[[str], int], numbers: Ints) -> Ints:
        known = self._maps.get(key)
        if known is None or len(known) < len(self.values):
            grown = np.full(max(2 * len(self.values), 1024), _UNKNOWN, np.int64)
            if known is not None:
                grown[: len(known)] = known
            self._maps[key] = known = grown
        found = known[numbers]
        missing = found == _UNKNOWN
        if missing.any():
            for number in np.unique(numbers[missing]).tolist():
                known[number] = function(self.values[number])
            found = known[numbers]
        return found


def used_only(values: Sequence[str], numbers: Ints) -> tuple[list[str], Ints]:
    """The strings that `numbers` refer to, and `numbers` reindexed into that shorter list."""
    is_used = np.zeros(len(values), np.bool_)
    is_used[numbers] = True
    used = np.flatnonzero(is_used)
    place = np.cumsum(is_used) - 1
    return [values[number] for number in used.tolist()], place[numbers]
