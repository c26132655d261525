"""Checkpoints of a run: written atomically, verified when read.

A checkpoint is weights, optimizer moments, a cursor and a few counters; everything else, dropout included, follows from
(configuration, step), so a run that is killed and resumed ends with the same bits as an uninterrupted one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from shared.errors import ManifestError, StoreError
from trainer.run_folder import keep_metrics, write_atomically
from trainer.state import Run, State

logger = logging.getLogger(__name__)

CHECKPOINT, BEST = "checkpoint.pt", "best.pt"
_ADVICE = "remove it to start the run from the beginning"

Weights = dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a checkpoint file holds. trained: learned weights and buffers of each module; frozen ones are left out."""

    state: State
    trained: dict[str, Weights]
    optimizer: dict[str, Any] | None
    inputs: dict[str, str]


def end_of_stage(number: int, name: str) -> str:
    """File name of the checkpoint at the end of a stage, from which the stage can be extended. number: from 0."""
    return f"checkpoint-{number + 1}-{name}.pt"


def write_checkpoint(run: Run, optimizer: torch.optim.Optimizer | None, name: str = CHECKPOINT) -> None:
    """Write the checkpoint on the first worker. optimizer: None between two stages. Raises StoreError.

    Where --output is in an object store, the run's checkpoint becomes its published state.
    """
    if not run.is_first:
        return
    content = {
        "state": asdict(run.state),
        "trained": {name: learned_weights(module) for name, module in run.trained.items()},
        "optimizer": None if optimizer is None else optimizer.state_dict(),
        "inputs": dict(run.inputs),
    }
    save_checkpoint(run.folder / name, content)
    if run.worker.remote is not None and name == CHECKPOINT:
        run.worker.remote.publish()


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically: a full disk leaves the previous one. Raises StoreError."""
    write_atomically(path, lambda file: torch.save(dict(content), file))


def read_checkpoint(path: Path, device: str) -> Checkpoint | None:
    """The last complete checkpoint, or None. Raises StoreError when it cannot be read."""
    if not path.exists():
        return None
    try:
        content: Any = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise StoreError(f"{path} cannot be read ({error}); {_ADVICE}") from error
    try:
        trained = content["trained"]
        if not all(isinstance(value, Tensor) for weights in trained.values() for value in weights.values()):
            raise TypeError("its weights are not tensors")
        return Checkpoint(
            state=TypeAdapter(State).validate_python(content["state"]),
            trained=trained,
            optimizer=content["optimizer"],
            inputs=TypeAdapter(dict[str, str]).validate_python(content["inputs"]),
        )
    except (AttributeError, KeyError, TypeError, ValidationError) as error:
        raise StoreError(f"{path} is not a checkpoint of this version ({error}); {_ADVICE}") from error


def restore(run: Run, checkpoint: Checkpoint) -> None:
    """Resume from a checkpoint. Raises ManifestError when inputs have changed or the weights do not fit."""
    for name, digest in checkpoint.inputs.items():
        if run.inputs.get(name) != digest:
            raise ManifestError(
                f"{run.output} was started with a different {name}; use another --output, or remove the folder"
            )
    run.state = checkpoint.state
    for name, module in run.trained.items():
        _load_learned(module, checkpoint.trained.get(name, {}), run.folder / CHECKPOINT)
    if run.is_first:
        keep_metrics(run.folder, run.state.metrics_lines)
    logger.info("resumed", extra={"fields": {"stage": run.state.stage, "step": run.state.step}})


def learned_weights(module: nn.Module) -> Weights:
    """Trained parameters and buffers of a module by name, without its frozen parameters."""
    entries = module.state_dict(keep_vars=True).items()
    return {
        name: value.detach() for name, value in entries if value.requires_grad or not isinstance(value, nn.Parameter)
    }


def _load_learned(module: nn.Module, weights: Weights, path: Path) -> None:
    try:
        unknown = module.load_state_dict(weights, strict=False).unexpected_keys
    except RuntimeError as error:
        message = str(error).splitlines()[-1].strip()
        raise ManifestError(f"{path} does not fit the model: {message}; {_ADVICE}") from error
    missing = learned_weights(module).keys() - weights.keys()
    if unknown or missing:
        name = sorted([*unknown, *missing])[0]
        raise ManifestError(f"{path} does not fit the model: they differ in {name}; {_ADVICE}")


def write_best(run: Run) -> None:
    """Keep the model's weights as the best so far, on the first worker. Raises StoreError."""
    if run.is_first:
        content = {"weights": run.model.state_dict(), "step": run.state.step}
        write_atomically(run.folder / BEST, lambda file: torch.save(content, file))


def restore_best(run: Run) -> None:
    """Load the best weights into the model."""
    content = torch.load(run.folder / BEST, map_location=run.worker.device, weights_only=True)
    run.model.load_state_dict(content["weights"])
