"""Token ids of a corpus file, in memory or memory-mapped; and the parts of a corpus too large to plan at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PART_TOKENS = 1 << 26
"""Tokens that are planned (cut, paired, shuffled) together, which bounds the memory of a plan."""
BLOCK_TOKENS = 1 << 22
IDS, OFFSETS = "ids", "offsets"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFile:
    """Token ids of the kept lines of one file: line i is `ids[offsets[i]:offsets[i + 1]]`.

    ids: (tokens,) int32, without special tokens; offsets: (lines + 1,) int64, the first of them 0. path: where
    both are stored when they are memory-mapped; another process then maps them, too, instead of getting a copy.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    path: str | None = field(default=None, compare=False)

    @property
    def num_lines(self) -> int:
        """Lines of the file."""
        return len(self.offsets) - 1

    def part(self, index: int, num_parts: int) -> tuple[TokenFile, int]:
        """The lines of one of `num_parts` parts with about equally many tokens, and the offset of its first token."""
        total = int(self.offsets[-1])
        marks = [total * one // num_parts for one in (index, index + 1)]
        first, last = np.searchsorted(self.offsets, marks).tolist()
        if index == 0:
            first = 0
        if index + 1 == num_parts:
            last = self.num_lines
        low, high = int(self.offsets[first]), int(self.offsets[last])
        return TokenFile(ids=self.ids[low:high], offsets=np.asarray(self.offsets[first : last + 1]) - low), low

    def blocks(self) -> Iterator[NDArray[np.int32]]:
        """All ids, BLOCK_TOKENS at a time."""
        return (self.ids[start : start + BLOCK_TOKENS] for start in range(0, len(self.ids), BLOCK_TOKENS))

    def __reduce__(self) -> tuple[Callable[..., TokenFile], tuple[Any, ...]]:
        if self.path is not None:
            return map_tokens, (self.path,)
        return _in_memory, (self.ids, self.offsets)


def _in_memory(ids: NDArray[np.int32], offsets: NDArray[np.int64]) -> TokenFile:
    return TokenFile(ids=ids, offsets=offsets)


def map_tokens(path: str) -> TokenFile:
    """The TokenFile whose ids are in `path`.ids and whose offsets in `path`.offsets. Raises OSError."""
    return TokenFile(ids=_mapped(f"{path}.{IDS}", np.int32), offsets=_mapped(f"{path}.{OFFSETS}", np.int64), path=path)


def _mapped(path: str, dtype: Any) -> NDArray[Any]:
    if not Path(path).stat().st_size:
        # An empty file cannot be mapped.
        return np.zeros(0, dtype)
    # A plain array: slices of a np.memmap are np.memmaps, which cost more than the small slices themselves.
    return np.asarray(np.memmap(path, dtype, mode="r"))


def num_parts_of(tokens: float) -> int:
    """Number of parts of about PART_TOKENS tokens or fewer, for a weighted corpus of `tokens` tokens."""
    return max(-(-int(tokens) // PART_TOKENS), 1)
