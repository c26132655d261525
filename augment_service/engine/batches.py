"""Model inputs -> batches of similar length under a token budget (pure).

Equal inputs are computed once. Batches depend on the inputs alone, so the floats of a shard never depend on what other
workers do. Inputs and rankings of whole shards are stored in columns that behave as sequences of single ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import overload

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One sequence for the masked LM: token ids, the length of the first segment, and the positions to predict."""

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    num_first_segment: int

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class ModelInputs(Sequence[ModelInput]):
    """Many inputs in columns. Input i has the tokens `starts[i]` to `starts[i + 1]` of `ids`.

    ids: (tokens,) int32. starts: (inputs + 1,) int64. positions: (wanted,) int64, concatenated over all inputs; input i
    has `first_position[i]` to `first_position[i + 1]`. num_first_segment: (inputs,) int64.
    """

    ids: NDArray[np.int32]
    starts: Ints
    positions: Ints
    first_position: Ints
    num_first_segment: Ints

    @classmethod
    def of(cls, inputs: Sequence[ModelInput]) -> ModelInputs:
        """Inputs in columns; ModelInputs are returned unchanged."""
        if isinstance(inputs, ModelInputs):
            return inputs
        return cls(
            np.asarray([token for one in inputs for token in one.ids], np.int32),
            offsets([len(one.ids) for one in inputs]),
            np.asarray([position for one in inputs for position in one.positions], np.int64),
            offsets([len(one.positions) for one in inputs]),
            np.asarray([one.num_first_segment for one in inputs], np.int64),
        )

    def __len__(self) -> int:
        return len(self.num_first_segment)

    @overload
    def __getitem__(self, index: int) -> ModelInput: ...
    @overload
    def __getitem__(self, index: slice) -> ModelInputs: ...
    def __getitem__(self, index: int | slice) -> ModelInput | ModelInputs:
        if isinstance(index, slice):
            return self.take(np.arange(*index.indices(len(self))))
        one = range(len(self))[index]
        ids = self.ids[self.starts[one] : self.starts[one + 1]]
        positions = self.positions[self.first_position[one] : self.first_position[one + 1]]
        return ModelInput(tuple(ids.tolist()), tuple(positions.tolist()), int(self.num_first_segment[one]))

    @cached_property
    def lengths(self) -> Ints:
        """(inputs,) tokens of each."""
        return np.diff(self.starts)

    @cached_property
    def num_positions(self) -> Ints:
        """(inputs,) wanted positions of each."""
        return np.diff(self.first_position)

    def take(self, indices: Ints) -> ModelInputs:
        """Some of the inputs, in the order of `indices`."""
        lengths, counts = self.lengths[indices], self.num_positions[indices]
        return ModelInputs(
            self.ids[ranges(self.starts[indices], lengths)],
            offsets(lengths),
            self.positions[ranges(self.first_position[indices], counts)],
            offsets(counts),
            self.num_first_segment[indices],
        )

    def fingerprints(self) -> list[bytes]:
        """Per input, bytes that are equal exactly for equal inputs."""
        counts, lengths = self.num_positions, self.lengths
        starts = offsets(2 + counts + lengths)
        packed = np.empty(starts[-1], np.int32)
        packed[starts[:-1]] = self.num_first_segment
        packed[starts[:-1] + 1] = counts
        packed[ranges(starts[:-1] + 2, counts)] = self.positions
        packed[ranges(starts[:-1] + 2 + counts, lengths)] = self.ids
        raw, bounds = packed.tobytes(), (4 * starts).tolist()
        return [raw[start:end] for start, end in pairwise(bounds)]


@dataclass(frozen=True, slots=True)
class Ranking:
    """ids int64 and scores float32, both (positions, K), best first."""

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Rankings(Sequence[Ranking]):
    """Concatenated rankings of many inputs: ids int64 and scores float32, both (positions of all inputs, K).

    Input i has the rows `first_position[i]` to `first_position[i + 1]`.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    first_position: Ints

    @classmethod
    def of(cls, rankings: Sequence[Ranking]) -> Rankings:
        """Rankings in columns; Rankings are returned unchanged."""
        if isinstance(rankings, Rankings):
            return rankings
        if not rankings:
            return cls(np.zeros((0, 0), np.int64), np.zeros((0, 0), np.float32), np.zeros(1, np.int64))
        ids, scores = (np.concatenate([getattr(one, name) for one in rankings]) for name in ("ids", "scores"))
        return cls(ids, scores, offsets([len(one.ids) for one in rankings]))

    def __len__(self) -> int:
        return len(self.first_position) - 1

    @overload
    def __getitem__(self, index: int) -> Ranking: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Ranking]: ...
    def __getitem__(self, index: int | slice) -> Ranking | Sequence[Ranking]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        one = range(len(self))[index]
        own = slice(self.first_position[one], self.first_position[one + 1])
        return Ranking(self.ids[own], self.scores[own])

    def take(self, indices: Ints) -> Rankings:
        """Some of the rankings, in the order of `indices`."""
        counts = np.diff(self.first_position)[indices]
        rows = ranges(self.first_position[indices], counts)
        return Rankings(self.ids[rows], self.scores[rows], offsets(counts))


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """`batches` of indices into `unique`; the caller's input i is `unique[index_of[i]]`."""

    unique: ModelInputs
    index_of: Ints
    batches: tuple[Ints, ...]


def plan_batches(inputs: Sequence[ModelInput], batch_tokens: int) -> BatchPlan:
    """Batches in order of length, each with at most `batch_tokens` tokens or a single longer input."""
    columns = ModelInputs.of(inputs)
    first: dict[bytes, int] = {}
    index_of = np.asarray([first.setdefault(key, len(first)) for key in columns.fingerprints()], np.int64)
    unique = columns if len(first) == len(columns) else columns.take(np.unique(index_of, return_index=True)[1])
    order = np.argsort(unique.lengths, kind="stable")
    ends = np.cumsum(unique.lengths[order])
    batches: list[Ints] = []
    start = 0
    while start < len(order):
        before = int(ends[start - 1]) if start else 0
        stop = max(int(np.searchsorted(ends, before + batch_tokens, side="right")), start + 1)
        batches.append(order[start:stop])
        start = stop
    return BatchPlan(unique, index_of, tuple(batches))


def ranges(starts: Ints, lengths: Ints) -> Ints:
    """Concatenated `arange(start, start + length)`: (sum of lengths,) int64."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    found: Ints = np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
    return found


def offsets(lengths: Sequence[int] | Ints) -> Ints:
    """Start of each of several consecutive runs, and the end of the last: (runs + 1,) int64."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
