"""Steps on a device that computes while the next step is prepared: nothing waits for it, and nothing else changes.

The CPU plays that device: what would wait for a GPU is counted among the operators that a step dispatches.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.command import call_main
from tests.support.distillation import Output, metrics_of, save_dev, save_teacher
from trainer import loop, steps

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique")


class Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operators whose result the host must wait for."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            one is not None and one.dtype == torch.bool for one in args[1]
        )
        if name in WAITING or by_mask:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("story")
    Output(folder / "augmented", num_rows=40).finish()
    return [
        *("task", "--task", "SST-2", "--augmented", str(folder / "augmented")),
        *("--teacher", str(save_teacher(folder / "teacher")), "--student", "2,16,32,4"),
        *("--dev", str(save_dev(folder / "dev.tsv")), "--epochs", "3", "--prediction-epochs", "3", "--device", "cpu"),
        *("--dtype", "fp32", "--batch-size", "8", "--threads", "1", "--loader-workers", "0", "--evaluations", "1"),
    ]


def test_a_step_does_not_wait_and_gives_the_same_weights_and_losses(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call_main(*arguments, "--output", str(tmp_path / "plain"), program="trainer").returncode == 0
    waits: list[int] = []

    def watched(*given: Any) -> dict[str, float]:
        converted: list[int] = []
        to_list = Tensor.tolist

        def counted(tensor: Tensor) -> Any:
            converted.append(1)
            return to_list(tensor)

        with monkeypatch.context() as patch, Waits() as seen:
            patch.setattr(Tensor, "tolist", counted)
            terms = steps.take_step(*given)
        assert seen.names == []
        waits.append(len(converted))
        return terms

    monkeypatch.setattr(steps, "ASYNCHRONOUS", ("cpu",))
    monkeypatch.setattr(loop, "take_step", watched)
    assert call_main(*arguments, "--output", str(tmp_path / "asynchronous"), program="trainer").returncode == 0
    assert len(waits) == 120
    assert sum(waits) == 0
    one, other = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("plain", "asynchronous"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert metrics_of(tmp_path / "plain") == metrics_of(tmp_path / "asynchronous")


def test_a_loss_that_is_not_finite_still_ends_the_run_before_anything_is_saved(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "ASYNCHRONOUS", ("cpu",))
    options = ("--output", str(tmp_path / "out"), "--lr", "1e30", "--checkpoint-seconds", "0.001")
    finished = call_main(*arguments, *options, program="trainer")
    assert finished.returncode == 1
    assert "(stage intermediate, epoch 0, " in finished.stderr.splitlines()[-1]
    assert "the last checkpoint is kept" in finished.stderr.splitlines()[-1]
    checkpoint = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)
    weights = [one for one in checkpoint["trained"]["student"].values() if one.is_floating_point()]
    assert all(bool(torch.isfinite(one).all()) for one in weights)
