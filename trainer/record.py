"""Progress reports of a training run: lines of metrics.jsonl, TensorBoard scalars, and the progress line."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from shared.cli.progress import Progress
from trainer.data.budget import Tokens
from trainer.data.loader import Step
from trainer.recipe import Scores, Stage
from trainer.run_folder import append_metrics
from trainer.state import Run

logger = logging.getLogger(__name__)


class Recorder:
    """Writes a run's metrics. Only the first worker writes; all of them count the lines, for the checkpoint."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._board: Any = None

    def losses(self, stage: Stage[Any], lr: float) -> None:
        """Means of the loss terms since the last call; starts new sums."""
        state = self._run.state
        means = {name: value / state.summed_steps for name, value in state.sums.items()}
        named = {name if name == "loss" else f"loss_{name}": round(value, 6) for name, value in means.items()}
        waited = {"data_wait_seconds": round(state.data_wait_seconds, 3)}
        self._write(stage, named | {"lr": lr} | waited, {f"{stage.name}/{key}": named[key] for key in named})
        state.sums, state.summed_steps = {}, 0

    def scores(self, stage: Stage[Any], scores: Scores) -> None:
        """Scores of an evaluation."""
        flat = _flatten(scores.values)
        self._write(stage, {scores.name: scores.values}, {f"{scores.name}/{key}": flat[key] for key in flat})
        place = {"stage": stage.name, "step": self._run.state.step}
        logger.info(scores.name, extra={"fields": place | flat})

    def close(self) -> None:
        """Flush TensorBoard."""
        if self._board is not None:
            self._board.close()

    def _write(self, stage: Stage[Any], entry: Mapping[str, Any], scalars: Mapping[str, float]) -> None:
        state = self._run.state
        state.metrics_lines += 1
        if not self._run.is_first:
            return
        place = {
            "stage": stage.name,
            "step": state.step,
            "samples": state.samples,
            "tokens": state.tokens,
            "seconds": round(state.seconds, 2),
        }
        append_metrics(self._run.folder, place | dict(entry))
        if self._board is None:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(self._run.folder / "tensorboard"), purge_step=state.step)
        for name, value in scalars.items():
            self._board.add_scalar(name, value, state.step)


class StageProgress:
    """The progress line of one stage: in tokens if the budget is in tokens, else in samples (extrapolated total)."""

    def __init__(self, run: Run, stage: Stage[Any]) -> None:
        self._run, self._stage = run, stage
        self._tokens_before = run.state.tokens - run.state.cursor.tokens
        self._first_samples = run.state.samples
        self._first_share: float | None = None
        if isinstance(stage.budget, Tokens):
            self._line = Progress(stage.name, stage.budget.total, "tokens", start=run.state.cursor.tokens)
        else:
            self._line = Progress(stage.name, 0, "samples", start=run.state.samples)

    def update(self, step: Step[Any], loss: float) -> None:
        """Show the position after a step; cheap enough for every step."""
        state, budget = self._run.state, self._stage.budget
        if isinstance(budget, Tokens):
            self._line.update(min(state.tokens - self._tokens_before, budget.total), loss=loss)
            return
        share = budget.share(step.position, step.before.tokens)
        if self._first_share is None:
            self._first_share = share
        elif share > self._first_share:
            rate = (state.samples - self._first_samples) / (share - self._first_share)
            self._line.total = self._first_samples + int(rate * (1.0 - self._first_share))
            self._line.update(state.samples, loss=loss)

    def close(self) -> None:
        """End the line."""
        self._line.close()


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}/")
        else:
            flat[prefix + name] = value
    return flat
