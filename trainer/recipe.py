"""What makes one training stage differ from another: data, budget, learning rate, losses and evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

from torch import Tensor

from trainer.data.budget import Budget
from trainer.data.sources import WindowSource

Losses = dict[str, Tensor]
"""Loss terms by name, each an fp32 scalar."""
Schedule = Callable[[float], float]
"""Completed share of the stage, in [0, 1] -> learning rate."""


class TrainingBatch(Protocol):
    """One part of a batch, as the loop handles it."""

    @property
    def source_ids(self) -> list[int]:
        """Source id of each row, as far as known; for error messages."""
        ...

    def to(self, device: str) -> Self:
        """The same batch on another device."""
        ...


BatchT = TypeVar("BatchT", bound=TrainingBatch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the weights are updated: AdamW with decay on matrices only, gradients clipped to a total norm."""

    schedule: Schedule
    weight_decay: float
    betas: tuple[float, float] = (0.9, 0.999)
    gradient_clip: float = 1.0
    metrics_period_steps: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Outcome of an evaluation. name: its key in metrics.jsonl; selection: what the best weights maximise, or None.

    noise: later weights replace the best ones unless their selection is lower by more than this.
    """

    name: str
    values: Mapping[str, Any]
    selection: float | None = None
    noise: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Scores at regular intervals of a stage and at its end.

    num_due: (passes done, tokens done) -> how many evaluations are due by then. Every worker evaluates, so that all
    agree on the best weights.
    """

    scores: Callable[[], Scores]
    num_due: Callable[[float, int], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage(Generic[BatchT]):
    """One stage of a run.

    losses: the terms of a part of a batch, already weighted with its share of the whole batch; their sum is minimised.
    """

    name: str
    source: WindowSource[BatchT]
    budget: Budget
    recipe: Recipe
    losses: Callable[[BatchT], Losses]
    evaluation: Evaluation | None = None


def per_epoch(count: int) -> Callable[[float, int], int]:
    """`Evaluation.num_due` for `count` evaluations in each pass over the data."""
    return lambda position, _tokens: math.floor(position * count)


def every_tokens(period: int) -> Callable[[float, int], int]:
    """`Evaluation.num_due` for an evaluation every `period` tokens."""
    return lambda _position, tokens: tokens // period


def schedule_of(kind: str, peak: float, warm_up_share: float) -> Schedule:
    """`linear`, or `constant`: the peak throughout, without warm-up, as in the reference's intermediate stage."""
    return linear_schedule(peak, warm_up_share) if kind == "linear" else lambda _share: peak


def linear_schedule(peak: float, warm_up_share: float) -> Schedule:
    """Linear warm-up over the first `warm_up_share` of a stage, then linear decay to zero."""

    def rate(share: float) -> float:
        if share < warm_up_share:
            return peak * max(share / warm_up_share, 1e-3)
        return peak * max(1.0 - share, 0.0) / (1.0 - warm_up_share)

    return rate


def plateau_schedule(peak: float, warm_up_share: float, decay_share: float) -> Schedule:
    """Linear warm-up, a plateau, then decay to zero over the last `decay_share` of a stage as 1 - sqrt."""

    def rate(share: float) -> float:
        if share < warm_up_share:
            return peak * (share / warm_up_share + 1e-3)
        decay_start = 1.0 - decay_share
        if share <= decay_start or decay_share == 0:
            return peak
        return peak * (1.0 - math.sqrt(min((share - decay_start) / decay_share, 1.0)))

    return rate
