"""The loop of all training commands: stages, steps, evaluations, checkpoints."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from shared.compute.memory import keep_freed_memory
from shared.errors import StoreError, TrainingError
from trainer.checkpoint import (
    CHECKPOINT,
    Checkpoint,
    end_of_stage,
    read_checkpoint,
    restore,
    restore_best,
    write_best,
    write_checkpoint,
)
from trainer.data.loader import Loader
from trainer.interruption import Interruption
from trainer.recipe import Scores, Stage
from trainer.record import Recorder, StageProgress
from trainer.run_folder import keep_metrics
from trainer.state import Best, Run, State
from trainer.steps import fetch_losses, make_optimizer, take_step

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

MOST_UNREAD = 16
"""Losses on a GPU are read after this many steps at most, so that a non-finite loss ends the run soon."""


def train(run: Run, stages: Sequence[Stage[Any]]) -> State:
    """Run the stages, resuming from the checkpoint if there is one.

    Leaves the best weights in the model of the first worker, or the last ones if no stage selects by score. A signal
    ends the run with a checkpoint and KeyboardInterrupt. Raises TrainingError,
    StoreError, ManifestError, and what the sources raise.
    """
    keep_freed_memory()
    saved = _shared_checkpoint(run, stages)
    if saved is not None:
        restore(run, saved)
    elif run.is_first:
        # A run that was killed before its first checkpoint starts over, and so do its metrics.
        keep_metrics(run.folder, 0)
    recorder = Recorder(run)
    while run.state.stage < len(stages):
        stage = stages[run.state.stage]
        optimizer = make_optimizer(run.trained.values(), stage.recipe)
        if saved is not None and saved.optimizer is not None:
            optimizer.load_state_dict(saved.optimizer)
        saved = None
        with Interruption() as interruption:
            _run_stage(run, stage, optimizer, recorder, interruption)
        run.state.totals = [*run.state.totals[: run.state.stage], stage.budget.total]
        write_checkpoint(run, optimizer, end_of_stage(run.state.stage, stage.name))
        run.state.finish_stage()
        write_checkpoint(run, None)
    recorder.close()
    if run.state.best is not None and run.is_first:
        restore_best(run)
    return run.state


def _shared_checkpoint(run: Run, stages: Sequence[Stage[Any]]) -> Checkpoint | None:
    """The checkpoint read by the first worker, on every worker: they need no shared disk, and always agree."""
    if run.worker.world == 1:
        return _last_checkpoint(run, stages, run.worker.device)
    import torch.distributed as distributed

    content = [_last_checkpoint(run, stages, "cpu") if run.is_first else None]
    distributed.broadcast_object_list(content)
    return content[0]


def _last_checkpoint(run: Run, stages: Sequence[Stage[Any]], device: str) -> Checkpoint | None:
    """The last checkpoint, or the end of the first stage whose budget has grown since it ended."""
    last = read_checkpoint(run.folder / CHECKPOINT, device)
    if last is None:
        return None
    for number, (stage, total) in enumerate(zip(stages, last.state.totals, strict=False)):
        if number < last.state.stage and stage.budget.total > total:
            path = run.folder / end_of_stage(number, stage.name)
            end = read_checkpoint(path, device)
            if end is None:
                raise StoreError(f"{path} is missing, so the stage cannot be extended; use another --output")
            return end
    return last


def _run_stage(
    run: Run,
    stage: Stage[Any],
    optimizer: torch.optim.Optimizer,
    recorder: Recorder,
    interruption: Interruption,
) -> None:
    config, state, worker = run.config, run.state, run.worker
    loader: Loader[Any] = Loader(
        source=stage.source,
        budget=stage.budget,
        num_processes=config.loader_workers,
        rank=worker.rank,
        world=worker.world,
        accumulate=config.accumulate,
    )
    progress = StageProgress(run, stage)
    started = saved = time.monotonic()
    seconds_before, waited_before = state.seconds, state.data_wait_seconds
    for module in run.trained.values():
        module.train()
    steps, loss = loader.steps(state.cursor), 0.0
    while (step := _between_steps(run, optimizer, interruption, lambda: next(steps, None))) is not None:
        due = stage.evaluation.num_due(step.position, step.before.tokens) if stage.evaluation else 0
        if due > state.evaluations_done:
            fetch_losses(run)
            scores = _between_steps(run, optimizer, interruption, lambda: _score(stage))
            state.evaluations_done = due
            keep_scores(run, stage, recorder, scores)
        terms = take_step(run, stage, optimizer, step)
        state.count(step, terms)
        interruption.is_requested = interruption.is_requested or run.is_stopping
        state.seconds = seconds_before + time.monotonic() - started
        state.data_wait_seconds = waited_before + loader.wait_seconds
        is_recorded = state.step % stage.recipe.metrics_period_steps == 0
        if is_recorded or len(run.unread) >= MOST_UNREAD:
            loss = fetch_losses(run) or loss
        loss = terms.get("loss", loss)
        if is_recorded and state.summed_steps:
            recorder.losses(stage, optimizer.param_groups[0]["lr"])
        if run.is_first:
            progress.update(step, loss)
        if time.monotonic() - saved > config.checkpoint_seconds:
            fetch_losses(run)
            write_checkpoint(run, optimizer)
            saved = time.monotonic()
    fetch_losses(run)
    if state.summed_steps:
        recorder.losses(stage, optimizer.param_groups[0]["lr"])
    progress.close()
    if state.cursor.step == 0:
        raise TrainingError(f"stage {stage.name}: the training data has no rows; nothing was trained or saved")
    scores = _between_steps(run, optimizer, interruption, lambda: _score(stage))
    if stage.evaluation:
        # A run that is extended from here does not score the same weights again.
        state.evaluations_done = stage.evaluation.num_due(stage.budget.total, state.cursor.tokens)
    keep_scores(run, stage, recorder, scores)


def _between_steps(
    run: Run, optimizer: torch.optim.Optimizer, interruption: Interruption, work: Callable[[], ResultT]
) -> ResultT:
    """Do work that leaves the run's state unchanged. A signal ends it with a checkpoint and KeyboardInterrupt."""
    try:
        with interruption.at_once():
            return work()
    except KeyboardInterrupt:
        fetch_losses(run)
        write_checkpoint(run, optimizer)
        logger.info("interrupted", extra={"fields": {"step": run.state.step, "checkpoint": "written"}})
        raise


def _score(stage: Stage[Any]) -> Scores | None:
    """Score the model. Every worker computes the same."""
    return None if stage.evaluation is None else stage.evaluation.scores()


def keep_scores(run: Run, stage: Stage[Any], recorder: Recorder, scores: Scores | None) -> None:
    """Record scores; keeps the weights if they are the best so far, or later and as good within the noise."""
    if scores is None:
        return
    state = run.state
    recorder.scores(stage, scores)
    state.scores = dict(scores.values)
    found = scores.selection
    if found is None:
        return
    highest = found if state.best is None else state.best.to_beat
    if state.best is None or found > highest or (scores.noise and found >= highest - scores.noise):
        state.best = Best(
            score=found,
            step=state.step,
            stage=stage.name,
            metrics=dict(scores.values),
            highest=highest if highest > found else None,
        )
        write_best(run)
