"""A checkpoint restores a run, or says in one line why it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from shared.errors import ManifestError, StoreError
from trainer.checkpoint import CHECKPOINT, read_checkpoint, restore, save_checkpoint, write_checkpoint
from trainer.config import LoopConfig
from trainer.data.loader import Cursor
from trainer.state import Best, Run, State, Worker


def run_of(folder: Path, model: nn.Module, **inputs: str) -> Run:
    worker = Worker(device="cpu", dtype=torch.float32)
    config = LoopConfig(output=str(folder))
    return Run(config=config, folder=folder, worker=worker, trained={"model": model}, inputs=inputs)


def partly_frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    model[0].weight.requires_grad_(False)
    return model


def test_state_and_learned_weights_come_back(tmp_path: Path) -> None:
    run = run_of(tmp_path, partly_frozen(), teacher="a")
    run.state = State(
        stage=1,
        cursor=Cursor(epoch=2, window=3, batch=4, step=50, tokens=900),
        step=70,
        best=Best(score=0.5, step=60, stage="prediction", metrics={"accuracy": 0.5}),
        scores={"accuracy": 0.5},
        sums={"loss": 1.5},
    )
    write_checkpoint(run, None)
    again = run_of(tmp_path, partly_frozen(), teacher="a")
    saved = read_checkpoint(tmp_path / CHECKPOINT, "cpu")
    assert saved is not None
    assert saved.trained["model"].keys() == {
        "0.bias",
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
    }
    restore(again, saved)
    assert again.state == run.state
    assert torch.equal(again.model.state_dict()["0.bias"], run.model.state_dict()["0.bias"])


def test_a_checkpoint_of_an_earlier_version_still_restores(tmp_path: Path) -> None:
    """Cursors had no step and tokens, and frozen weights were saved too."""
    model = partly_frozen()
    old = {"stage": 0, "cursor": {"epoch": 1, "window": 0, "batch": 7}, "step": 9, "samples": 72, "best": None}
    content: dict[str, Any] = {"state": old, "trained": {"model": model.state_dict()}, "optimizer": None, "inputs": {}}
    save_checkpoint(tmp_path / CHECKPOINT, content)
    run = run_of(tmp_path, partly_frozen())
    saved = read_checkpoint(tmp_path / CHECKPOINT, "cpu")
    assert saved is not None
    restore(run, saved)
    assert (run.state.cursor, run.state.step) == (Cursor(epoch=1, batch=7), 9)


def test_changed_inputs_are_refused(tmp_path: Path) -> None:
    write_checkpoint(run_of(tmp_path, partly_frozen(), teacher="a"), None)
    saved = read_checkpoint(tmp_path / CHECKPOINT, "cpu")
    assert saved is not None
    with pytest.raises(ManifestError, match="was started with a different teacher; use another --output"):
        restore(run_of(tmp_path, partly_frozen(), teacher="b"), saved)


@pytest.mark.parametrize("other", [nn.Linear(3, 2), nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))])
def test_weights_of_another_model_are_refused(tmp_path: Path, other: nn.Module) -> None:
    write_checkpoint(run_of(tmp_path, partly_frozen()), None)
    saved = read_checkpoint(tmp_path / CHECKPOINT, "cpu")
    assert saved is not None
    with pytest.raises(ManifestError, match="does not fit the model"):
        restore(run_of(tmp_path, other), saved)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT
    assert read_checkpoint(path, "cpu") is None
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(StoreError, match="cannot be read"):
        read_checkpoint(path, "cpu")
    whole = {"state": {}, "trained": {}, "optimizer": None, "inputs": {}}
    for wrong in ({"state": {"step": "many"}}, {"trained": {"model": {"weight": 3}}}, {"inputs": 3}, {"state": 3}):
        save_checkpoint(path, whole | wrong)
        with pytest.raises(StoreError, match="is not a checkpoint of this version"):
            read_checkpoint(path, "cpu")
    save_checkpoint(path, {"weights": torch.ones(2)})
    with pytest.raises(StoreError, match="is not a checkpoint of this version"):
        read_checkpoint(path, "cpu")
