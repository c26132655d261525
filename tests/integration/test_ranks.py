"""The same weights for any number of workers, weights that no loss reaches included."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.distillation import Output, save_dev, save_teacher
from tests.support.ranks import run_ranks


@pytest.mark.parametrize(
    ("stages", "world"),
    [
        (["intermediate"], 2),
        (["intermediate", "prediction"], 2),
        pytest.param(["intermediate", "prediction"], 4, marks=pytest.mark.slow),
    ],
)
def test_any_number_of_ranks_gives_the_weights_of_one(tmp_path: Path, stages: list[str], world: int) -> None:
    Output(tmp_path / "augmented", num_rows=40).finish()
    options = {
        "task": "SST-2",
        "augmented": str(tmp_path / "augmented"),
        "teacher": str(save_teacher(tmp_path / "teacher")),
        "student": "2,16,32,4",
        "dev": str(save_dev(tmp_path / "dev.tsv")),
        "stages": stages,
        "epochs": 2.5,
        "prediction_epochs": 2.5,
        "batch_size": 8,
        "loader_workers": 0,
        "dropout": 0.0,
        "lr": 1e-3,
        "prediction_lr": 1e-3,
        "weight_decay": 10.0,  # so that decay without a gradient would show
    }
    weights = []
    for number in (1, world):
        run_ranks(options, tmp_path / f"of-{number}", number)
        weights.append(load_file(tmp_path / f"of-{number}" / "model" / "model.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], atol=1e-4, rtol=1e-3), name
