"""One training step: gradients of a batch's parts, summed over the workers, and the optimizer's update."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shared.errors import TrainingError
from shared.seeds import step_seed
from trainer.data.loader import Step
from trainer.interruption import STOP
from trainer.recipe import BatchT, Recipe, Stage
from trainer.state import Run, UnreadLosses

ASYNCHRONOUS = ("cuda",)
"""Devices that compute while this process prepares the next step."""


def make_optimizer(modules: Iterable[nn.Module], recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW over the learned weights, with weight decay on matrices only."""
    weights = _learned(modules)
    groups = [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.schedule(0.0), betas=recipe.betas, fused=True)


def take_step(run: Run, stage: Stage[BatchT], optimizer: torch.optim.Optimizer, step: Step[BatchT]) -> dict[str, float]:
    """Update the weights; returns the loss terms of the whole batch and their sum, `loss`.

    A single worker with a GPU does not wait for it: its losses stay on the GPU, `fetch_losses` returns them later, and
    the result is empty. A batch without anything to predict leaves the weights as they are. Raises TrainingError when
    the loss is not finite.
    """
    worker, state = run.worker, run.state
    lr = stage.recipe.schedule(stage.budget.share(step.position, step.before.tokens))
    for group in optimizer.param_groups:
        group["lr"] = lr
    # The dropout of a step follows from its number, so a resumed run needs no random state.
    torch.manual_seed(step_seed(run.config.seed, state.step, worker.rank))
    parts = [_backward(run, stage, part) for part in step.parts]
    if parts and worker.world == 1 and worker.device in ASYNCHRONOUS:
        names, values = parts[0][0], torch.stack([values for _, values in parts]).sum(0)
        place = _place(stage, step)
        run.unread.append(UnreadLosses(step=state.step, place=place, names=names, values=values))
        _update(run, stage, optimizer)
        return {}
    totals: dict[str, float] = {}
    for names, values in parts:
        _add(totals, dict(zip(names, values.tolist(), strict=True)))
    if worker.world > 1:
        totals = _sum_over_workers(run, totals)
    if not totals:
        optimizer.zero_grad(set_to_none=True)
        return {"loss": 0.0}
    if not math.isfinite(totals["loss"]):
        raise TrainingError(_not_finite(state.step, _place(stage, step), totals["loss"]))
    _update(run, stage, optimizer)
    return totals


def fetch_losses(run: Run) -> float | None:
    """Wait for the GPU, and add the losses that are still there to the state; returns the last one, if there is any.

    Raises TrainingError when a loss is not finite. The steps since then have used useless weights, so callers fetch
    before they score or save anything.
    """
    unread, run.unread = run.unread, []
    last = None
    for one, values in zip(unread, _on_host([one.values for one in unread]), strict=True):
        terms = dict(zip(one.names, values, strict=True))
        if not math.isfinite(terms["loss"]):
            raise TrainingError(_not_finite(one.step, one.place, terms["loss"]))
        run.state.add(terms)
        last = terms["loss"]
    return last


def _on_host(values: Sequence[Tensor]) -> list[list[float]]:
    """The values of vectors on one device, copied in one transfer."""
    flat = torch.cat(list(values)).tolist() if values else []
    sizes = [len(one) for one in values]
    return [flat[end - size : end] for size, end in zip(sizes, itertools.accumulate(sizes), strict=True)]


def _update(run: Run, stage: Stage[Any], optimizer: torch.optim.Optimizer) -> None:
    weights = [weight for module in run.trained.values() for weight in module.parameters()]
    nn.utils.clip_grad_norm_(weights, stage.recipe.gradient_clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _backward(run: Run, stage: Stage[BatchT], part: BatchT) -> tuple[tuple[str, ...], Tensor]:
    """Add a part's gradients; returns the names of its loss terms and of their sum, and the values on the device."""
    device, dtype = run.worker.device, run.worker.dtype
    batch = part.to(device)
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        losses = stage.losses(batch)
    loss = torch.stack(list(losses.values())).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    values = torch.stack([*(value.detach() for value in losses.values()), loss.detach()])
    return (*losses, "loss"), values


def _sum_over_workers(run: Run, totals: dict[str, float]) -> dict[str, float]:
    """Add up gradients and losses; each worker's are already weighted with its share of the batch.

    A weight that has no gradient on any worker gets none, as with one worker: AdamW then skips it, whereas a zero
    gradient would let it decay.
    """
    import torch.distributed as distributed

    weights = _learned(run.trained.values())
    parts = [(torch.zeros_like(weight) if weight.grad is None else weight.grad).reshape(-1) for weight in weights]
    has_gradient = [float(weight.grad is not None) for weight in weights]
    flat = torch.cat([*parts, torch.tensor(has_gradient, device=parts[0].device, dtype=parts[0].dtype)])
    distributed.all_reduce(flat)
    is_learned = flat[-len(weights) :].tolist()
    start = 0
    for weight, workers in zip(weights, is_learned, strict=True):
        weight.grad = flat[start : start + weight.numel()].view_as(weight) if workers else None
        start += weight.numel()
    gathered: list[Any] = [None] * run.worker.world
    distributed.all_gather_object(gathered, (totals, run.is_first and (run.folder / STOP).exists()))
    summed: dict[str, float] = {}
    for terms, is_stopping in gathered:
        _add(summed, terms)
        run.is_stopping = run.is_stopping or is_stopping
    return summed


def _add(totals: dict[str, float], terms: dict[str, float]) -> None:
    for name, value in terms.items():
        totals[name] = totals.get(name, 0.0) + value


def _learned(modules: Iterable[nn.Module]) -> list[Tensor]:
    return [weight for module in modules for weight in module.parameters() if weight.requires_grad]


def _place(stage: Stage[Any], step: Step[Any]) -> str:
    place, ids = step.before, _source_ids(step.parts)
    rows = f", source ids {ids}" if ids else ""
    return f"stage {stage.name}, epoch {place.epoch}, window {place.window}, batch {place.batch}{rows}"


def _not_finite(step: int, place: str, loss: float) -> str:
    return f"the loss of step {step} is {loss} ({place}); the last checkpoint is kept. Try a lower --lr"


def _source_ids(parts: Sequence[Any], count: int = 4) -> list[int]:
    return [source_id for part in parts for source_id in part.source_ids][:count]
