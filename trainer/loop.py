"""The loop that all stages share: steps, learning rate, checkpoints, metrics, scores on dev, best weights.

A run is a list of stages. Its state is weights, optimizer moments, a cursor and a few counters; everything else,
dropout included, follows from (configuration, step), so a killed run ends with the same bits as one that was not.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shared.cli.progress import Progress
from shared.compute.memory import keep_freed_memory
from shared.errors import ManifestError, TrainingError
from trainer.checkpoint import (
    CHECKPOINT,
    append_metrics,
    keep_metrics,
    load_checkpoint,
    save_checkpoint,
    write_atomically,
)
from trainer.config import LoopConfig
from trainer.data.batches import Batch
from trainer.data.loader import Cursor, Loader, Step
from trainer.data.sources import WindowSource

logger = logging.getLogger(__name__)

METRICS_PERIOD_STEPS = 50
GRADIENT_CLIP = 1.0
BETAS = (0.9, 0.999)
BEST = "best.pt"

Losses = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: where its examples come from, its recipe, and the loss terms of a part of a batch.

    `losses` gives each term already weighted with the part's share of the batch; the sum is minimised. `evaluations`:
    scores on dev per epoch, 0 for none.
    """

    name: str
    source: WindowSource
    epochs: float
    lr: float
    losses: Callable[[Batch], Losses]
    evaluations: int


@dataclass(frozen=True, slots=True)
class Worker:
    """This process among the training workers, and what it computes with."""

    device: str
    dtype: torch.dtype
    rank: int = 0
    world: int = 1


@dataclass(slots=True)
class Best:
    """The best score on dev so far."""

    score: float
    step: int
    stage: str
    metrics: dict[str, float]


@dataclass(slots=True)
class State:
    """Where a run stands; all of it is in the checkpoint."""

    stage: int = 0
    cursor: Cursor = field(default_factory=Cursor)
    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    data_wait_seconds: float = 0.0
    evaluations_done: int = 0
    best: Best | None = None
    sums: dict[str, float] = field(default_factory=dict)
    summed_steps: int = 0
    metrics_lines: int = 0

    def facts(self) -> dict[str, Any]:
        """What a run's result says of its way: best scores on dev, steps, samples, seconds."""
        return {
            "dev": self.best.metrics if self.best else {},
            "score": self.best.score if self.best else None,
            "best_step": self.best.step if self.best else None,
            "steps": self.step,
            "samples": self.samples,
            "seconds": round(self.seconds, 1),
            "data_wait_share": round(self.data_wait_seconds / max(self.seconds, 1e-9), 5),
        }


@dataclass(slots=True)
class Run:
    """A run in progress. `trained`: the modules whose weights are learned, by name; the first is the model."""

    config: LoopConfig
    folder: Path
    worker: Worker
    trained: Mapping[str, nn.Module]
    pad_id: int
    evaluate: Callable[[], tuple[float, dict[str, float]]] | None
    inputs: Mapping[str, str] = field(default_factory=dict)
    state: State = field(default_factory=State)
    _writer: Any = None

    @property
    def model(self) -> nn.Module:
        """The model that is trained and saved."""
        return next(iter(self.trained.values()))

    @property
    def is_first(self) -> bool:
        """Whether this worker writes."""
        return self.worker.rank == 0


def train(run: Run, stages: Sequence[Stage]) -> State:
    """Run the stages from where the checkpoint stands. Leaves the best weights (or the last, where no stage was scored)
    in the model. Raises TrainingError, StoreError, and what the sources raise."""
    keep_freed_memory()
    saved = load_checkpoint(run.folder / CHECKPOINT, run.worker.device)
    if saved is not None:
        _restore(run, saved)
    while run.state.stage < len(stages):
        stage = stages[run.state.stage]
        optimizer = make_optimizer(run.trained.values(), stage.lr, run.config.weight_decay)
        if saved is not None and saved["optimizer"] is not None:
            optimizer.load_state_dict(saved["optimizer"])
        saved = None
        _run_stage(run, stage, optimizer)
        run.state.stage += 1
        run.state.cursor, run.state.evaluations_done = Cursor(), 0
        _checkpoint(run, None)
    if run.state.best is not None:
        weights = torch.load(run.folder / BEST, map_location=run.worker.device, weights_only=True)
        run.model.load_state_dict(weights["weights"])
    return run.state


def make_optimizer(modules: Iterable[nn.Module], lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW with weight decay on matrices only."""
    weights = [weight for module in modules for weight in module.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=BETAS, fused=True)


def learning_rate(peak: float, share: float, warm_up_share: float) -> float:
    """Linear up over the first `warm_up_share` of a stage, then linear down to zero; `share` in [0, 1]."""
    if share < warm_up_share:
        return peak * max(share / warm_up_share, 1e-3)
    return peak * max(1.0 - share, 0.0) / (1.0 - warm_up_share)


def _run_stage(run: Run, stage: Stage, optimizer: torch.optim.Optimizer) -> None:
    config, state, worker = run.config, run.state, run.worker
    loader = Loader(
        stage.source, stage.epochs, run.pad_id, config.loader_workers, worker.rank, worker.world, config.accumulate
    )
    progress = Progress(stage.name, 0, "samples", start=state.samples)
    began_seconds, began = state.seconds, time.monotonic()
    waited_before, first_samples, first_position = state.data_wait_seconds, state.samples, None
    saved = time.monotonic()
    for module in run.trained.values():
        module.train()
    for step in loader.steps(state.cursor):
        mark = math.floor(step.position * stage.evaluations)
        if mark > state.evaluations_done:
            state.evaluations_done = mark
            _evaluate(run, stage)
        terms = _take_step(run, stage, optimizer, step)
        state.step += 1
        state.samples += step.num_rows
        state.cursor = step.after
        state.seconds = began_seconds + time.monotonic() - began
        state.data_wait_seconds = waited_before + loader.wait_seconds
        for name, value in terms.items():
            state.sums[name] = state.sums.get(name, 0.0) + value
        state.summed_steps += 1
        first_position = step.position if first_position is None else first_position
        if state.step % METRICS_PERIOD_STEPS == 0:
            _report(run, stage, optimizer)
            done = step.position - first_position
            if done > 0:
                progress.total = first_samples + int(
                    (state.samples - first_samples) * (stage.epochs - first_position) / done
                )
            if run.is_first:
                progress.update(state.samples, loss=terms["loss"])
        if time.monotonic() - saved > config.checkpoint_seconds:
            _checkpoint(run, optimizer)
            saved = time.monotonic()
    if state.summed_steps:
        _report(run, stage, optimizer)
    progress.close()
    if stage.evaluations:
        _evaluate(run, stage)


def _take_step(run: Run, stage: Stage, optimizer: torch.optim.Optimizer, step: Step) -> dict[str, float]:
    worker, state = run.worker, run.state
    lr = learning_rate(stage.lr, step.position / stage.epochs, run.config.warm_up_share)
    for group in optimizer.param_groups:
        group["lr"] = lr
    # Dropout of a step follows from its number: a resumed run needs no random state.
    torch.manual_seed((run.config.seed * 1_000_003 + state.step) * 64 + worker.rank)
    totals: dict[str, float] = {}
    for part in step.parts:
        batch = part.to(worker.device)
        with torch.autocast(worker.device, worker.dtype, enabled=worker.dtype != torch.float32):
            losses = stage.losses(batch)
        loss = torch.stack(list(losses.values())).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        for name, value in {**losses, "loss": loss}.items():
            totals[name] = totals.get(name, 0.0) + float(value.detach())
    if worker.world > 1:
        totals = _sum_over_workers(run, totals)
    if not math.isfinite(totals["loss"]):
        where, ids = state.cursor, [int(key[0]) for part in step.parts for key in part.keys[:4]]
        raise TrainingError(
            f"the loss of step {state.step} is {totals['loss']} (stage {stage.name}, epoch {where.epoch}, window "
            f"{where.window}, batch {where.batch}, source ids {ids[:4]}); the last checkpoint is kept. Try a lower --lr"
        )
    nn.utils.clip_grad_norm_(
        [weight for module in run.trained.values() for weight in module.parameters()], GRADIENT_CLIP
    )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return totals


def _sum_over_workers(run: Run, totals: dict[str, float]) -> dict[str, float]:
    """Add up gradients and losses; each worker's are weighted with its share of the batch already."""
    import torch.distributed as distributed

    weights = [weight for module in run.trained.values() for weight in module.parameters() if weight.requires_grad]
    flat = torch.cat(
        [(torch.zeros_like(weight) if weight.grad is None else weight.grad).reshape(-1) for weight in weights]
    )
    distributed.all_reduce(flat)
    start = 0
    for weight in weights:
        weight.grad = flat[start : start + weight.numel()].view_as(weight)
        start += weight.numel()
    gathered: list[dict[str, float] | None] = [None] * run.worker.world
    distributed.all_gather_object(gathered, totals)
    names = {name for one in gathered if one for name in one}
    return {name: sum(one.get(name, 0.0) for one in gathered if one) for name in sorted(names)}


def _evaluate(run: Run, stage: Stage) -> None:
    """Score on dev; keeps the weights when they are the best so far. Every worker computes the same."""
    if run.evaluate is None:
        return
    state = run.state
    value, metrics = run.evaluate()
    state.metrics_lines += 1
    if run.is_first:
        append_metrics(run.folder, _stamp(run, stage) | {"dev": metrics})
        for name, metric in metrics.items():
            _board(run).add_scalar(f"dev/{name}", metric, state.step)
    logger.info("dev", extra={"fields": {"stage": stage.name, "step": state.step} | metrics})
    if state.best is None or value > state.best.score:
        state.best = Best(value, state.step, stage.name, metrics)
        if run.is_first:
            content = {"weights": run.model.state_dict(), "step": state.step}
            write_atomically(run.folder / BEST, lambda file: torch.save(content, file))


def _report(run: Run, stage: Stage, optimizer: torch.optim.Optimizer) -> None:
    state = run.state
    state.metrics_lines += 1
    if run.is_first:
        terms = {name: value / state.summed_steps for name, value in state.sums.items()}
        named = {name if name == "loss" else f"loss_{name}": round(value, 6) for name, value in terms.items()}
        lr = optimizer.param_groups[0]["lr"]
        append_metrics(
            run.folder, _stamp(run, stage) | named | {"lr": lr, "data_wait_seconds": round(state.data_wait_seconds, 3)}
        )
        for name, value in named.items():
            _board(run).add_scalar(f"{stage.name}/{name}", value, state.step)
        _board(run).add_scalar(f"{stage.name}/lr", lr, state.step)
    state.sums, state.summed_steps = {}, 0


def _stamp(run: Run, stage: Stage) -> dict[str, Any]:
    state = run.state
    return {"stage": stage.name, "step": state.step, "samples": state.samples, "seconds": round(state.seconds, 2)}


def _checkpoint(run: Run, optimizer: torch.optim.Optimizer | None) -> None:
    if not run.is_first:
        return
    state = {
        "state": asdict(run.state),
        "trained": {name: module.state_dict() for name, module in run.trained.items()},
        "optimizer": None if optimizer is None else optimizer.state_dict(),
        "inputs": dict(run.inputs),
    }
    save_checkpoint(run.folder / CHECKPOINT, state)


def _restore(run: Run, saved: dict[str, Any]) -> None:
    for name, digest in saved["inputs"].items():
        if run.inputs.get(name) != digest:
            raise ManifestError(
                f"{run.folder} was begun with another {name} than there is now; use another --output, or "
                "remove the folder"
            )
    values = dict(saved["state"])
    values["cursor"] = Cursor(**values["cursor"])
    values["best"] = None if values["best"] is None else Best(**values["best"])
    run.state = State(**values)
    for name, module in run.trained.items():
        module.load_state_dict(saved["trained"][name])
    if run.is_first:
        keep_metrics(run.folder, run.state.metrics_lines)
    logger.info("resumed", extra={"fields": {"stage": run.state.stage, "step": run.state.step}})


def _board(run: Run) -> Any:
    if run._writer is None:
        from tensorboardX import SummaryWriter

        run._writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.state.step)
    return run._writer
