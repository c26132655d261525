"""Model inputs -> batches of similar length under a token budget (pure).

Equal inputs are computed once. Batches depend on the inputs alone, so the floats of a shard never depend on what other
workers do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One sequence for the masked LM: token ids, the length of the first segment, and the positions to predict."""

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    num_first_segment: int

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Ranking:
    """ids int64 and scores float32, both (positions, K), best first."""

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """`batches` of indices into `unique`; input i of the caller is `unique[index_of[i]]`."""

    unique: tuple[ModelInput, ...]
    index_of: tuple[int, ...]
    batches: tuple[tuple[int, ...], ...]


def plan_batches(inputs: Sequence[ModelInput], batch_tokens: int) -> BatchPlan:
    """Batches in order of length, each of at most `batch_tokens` tokens, or of a single longer input."""
    first: dict[ModelInput, int] = {}
    index_of = tuple(first.setdefault(one, len(first)) for one in inputs)
    unique = tuple(first)
    order = sorted(range(len(unique)), key=lambda index: (len(unique[index]), index))
    batches: list[tuple[int, ...]] = []
    current: list[int] = []
    tokens = 0
    for index in order:
        if current and tokens + len(unique[index]) > batch_tokens:
            batches.append(tuple(current))
            current, tokens = [], 0
        current.append(index)
        tokens += len(unique[index])
    if current:
        batches.append(tuple(current))
    return BatchPlan(unique, index_of, tuple(batches))
