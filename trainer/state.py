"""The state of a run: everything that changes while it trains, apart from the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer.config import LoopConfig
from trainer.data.loader import Cursor, Step
from trainer.remote_run import RemoteRun
from trainer.result import RunResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """This process among the training workers, with its device and precision.

    remote: where its checkpoints also go; uri: where the user finds the run, if that is not a folder.
    """

    device: str
    dtype: torch.dtype
    rank: int = 0
    world: int = 1
    remote: RemoteRun | None = None
    uri: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The weights that are kept so far, with their scores on dev. highest: the highest score, if others had it."""

    score: float
    step: int
    stage: str
    metrics: dict[str, float]
    highest: float | None = None

    @property
    def to_beat(self) -> float:
        """The highest score so far."""
        return self.score if self.highest is None else self.highest


@dataclass(slots=True, kw_only=True)
class State:
    """Progress of a run; all of it is in the checkpoint.

    stage: index of the current stage; step, samples, tokens: totals over all stages; sums: loss terms summed since the
    last line of metrics; scores: values of the last evaluation; totals: passes or tokens of the stages that have ended.
    """

    stage: int = 0
    cursor: Cursor = field(default_factory=Cursor)
    step: int = 0
    samples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    data_wait_seconds: float = 0.0
    evaluations_done: int = 0
    best: Best | None = None
    scores: dict[str, Any] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    summed_steps: int = 0
    metrics_lines: int = 0
    totals: list[float] = field(default_factory=list)

    def count(self, step: Step[Any], terms: Mapping[str, float]) -> None:
        """Record a step that was taken. terms: empty when they are not known yet."""
        self.step += 1
        self.samples += step.num_rows
        self.tokens += step.num_tokens
        self.cursor = step.after
        if terms:
            self.add(terms)

    def add(self, terms: Mapping[str, float]) -> None:
        """Add the loss terms of a step to the sums."""
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.summed_steps += 1

    def finish_stage(self) -> None:
        """Move to the start of the next stage."""
        self.stage += 1
        self.cursor, self.evaluations_done = Cursor(), 0

    def complete(self, result: RunResult) -> RunResult:
        """`result` with the run's best scores and totals."""
        return replace(
            result,
            dev=self.best.metrics if self.best else {},
            score=self.best.score if self.best else None,
            best_step=self.best.step if self.best else None,
            steps=self.step,
            samples=self.samples,
            tokens=self.tokens,
            seconds=round(self.seconds, 1),
            data_wait_share=round(self.data_wait_seconds / max(self.seconds, 1e-9), 5),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadLosses:
    """Loss terms of a step that was taken: `values` (terms,) on the device; place: where in training, for messages."""

    step: int
    place: str
    names: tuple[str, ...]
    values: Tensor


@dataclass(slots=True, kw_only=True)
class Run:
    """A run in progress.

    trained: modules with learned weights, by name; the first is the model. inputs: name -> digest of files that must
    not change before the run is resumed. is_stopping: the workers have agreed to stop after this step. unread: losses
    of the last steps that are still on the GPU.
    """

    config: LoopConfig
    folder: Path
    worker: Worker
    trained: Mapping[str, nn.Module]
    inputs: Mapping[str, str] = field(default_factory=dict)
    state: State = field(default_factory=State)
    is_stopping: bool = False
    unread: list[UnreadLosses] = field(default_factory=list)

    @property
    def model(self) -> nn.Module:
        """The model that is trained and saved."""
        return next(iter(self.trained.values()))

    @property
    def output(self) -> str:
        """Where the user finds the run: its folder, or its URI."""
        return self.worker.uri or str(self.folder)

    @property
    def is_first(self) -> bool:
        """Whether this worker writes files."""
        return self.worker.rank == 0
