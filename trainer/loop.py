"""The loop of all training commands: stages, steps, evaluations, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from shared.compute.memory import keep_freed_memory
from trainer.checkpoint import CHECKPOINT, read_checkpoint, restore, restore_best, write_best, write_checkpoint
from trainer.data.loader import Loader
from trainer.recipe import Stage
from trainer.record import Recorder, StageProgress
from trainer.state import Best, Run, State
from trainer.steps import make_optimizer, take_step


def train(run: Run, stages: Sequence[Stage[Any]]) -> State:
    """Run the stages, from the checkpoint if there is one.

    Leaves the best weights in the model, or the last ones where no stage selects by score. Raises TrainingError,
    StoreError, ManifestError, and what the sources raise.
    """
    keep_freed_memory()
    saved = read_checkpoint(run.folder / CHECKPOINT, run.worker.device)
    if saved is not None:
        restore(run, saved)
    recorder = Recorder(run)
    while run.state.stage < len(stages):
        stage = stages[run.state.stage]
        optimizer = make_optimizer(run.trained.values(), stage.recipe)
        if saved is not None and saved.optimizer is not None:
            optimizer.load_state_dict(saved.optimizer)
        saved = None
        _run_stage(run, stage, optimizer, recorder)
        run.state.finish_stage()
        write_checkpoint(run, None)
    recorder.close()
    if run.state.best is not None:
        restore_best(run)
    return run.state


def _run_stage(run: Run, stage: Stage[Any], optimizer: torch.optim.Optimizer, recorder: Recorder) -> None:
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
    for step in loader.steps(state.cursor):
        due = stage.evaluation.num_due(step.position, step.before.tokens) if stage.evaluation else 0
        if due > state.evaluations_done:
            state.evaluations_done = due
            _evaluate(run, stage, recorder)
        terms = take_step(run, stage, optimizer, step)
        state.count(step, terms)
        state.seconds = seconds_before + time.monotonic() - started
        state.data_wait_seconds = waited_before + loader.wait_seconds
        if state.step % stage.recipe.metrics_period_steps == 0:
            recorder.losses(stage, optimizer.param_groups[0]["lr"])
        if run.is_first:
            progress.update(step, terms["loss"])
        if time.monotonic() - saved > config.checkpoint_seconds:
            write_checkpoint(run, optimizer)
            saved = time.monotonic()
    if state.summed_steps:
        recorder.losses(stage, optimizer.param_groups[0]["lr"])
    progress.close()
    _evaluate(run, stage, recorder)


def _evaluate(run: Run, stage: Stage[Any], recorder: Recorder) -> None:
    """Score the model; keeps its weights when they are the best so far. Every worker computes the same."""
    if stage.evaluation is None:
        return
    state = run.state
    scores = stage.evaluation.scores()
    recorder.scores(stage, scores)
    state.scores = dict(scores.values)
    if scores.selection is not None and (state.best is None or scores.selection > state.best.score):
        state.best = Best(score=scores.selection, step=state.step, stage=stage.name, metrics=dict(scores.values))
        write_best(run)
