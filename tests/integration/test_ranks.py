"""The same weights for any number of workers, weights that no loss reaches included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.distillation import Output, save_dev, save_teacher, source_rows
from tests.support.ranks import run_ranks


@pytest.mark.parametrize(
    ("stages", "world"),
    [
        (["intermediate"], 2),
        pytest.param(["intermediate", "prediction"], 2, marks=pytest.mark.slow),
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
    check_ranks(options, tmp_path, (1, world))


@pytest.mark.slow
@pytest.mark.parametrize("command", ["teacher", "general"])
def test_one_two_and_four_ranks_of_the_other_stages_agree_after_fifty_steps(tmp_path: Path, command: str) -> None:
    encoder, train = str(save_teacher(tmp_path / "encoder")), str(save_dev(tmp_path / "train.tsv", 160))
    (tmp_path / "corpus.txt").write_text("\n".join(row.text_a for row in source_rows(600)) + "\n")
    common: dict[str, object] = {"batch_size": 8, "loader_workers": 0, "lr": 1e-3, "weight_decay": 10.0, "epochs": 2.5}
    if command == "teacher":
        # Without dropout, whose draws differ between ranks.
        config = json.loads((tmp_path / "encoder" / "config.json").read_text())
        config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        (tmp_path / "encoder" / "config.json").write_text(json.dumps(config))
        common |= {"task": "SST-2", "train": train, "dev": train, "encoder": encoder}
    else:
        corpus = [str(tmp_path / "corpus.txt")]
        common |= {"corpus": corpus, "teacher": encoder, "student": "2,16,32,4", "dropout": 0.0, "max_length": 32}
        common |= {"pairs": 0.5}
    check_ranks({"command": command} | common, tmp_path, (1, 2, 4))


def test_no_rank_reads_what_a_slow_disk_has_not_written_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = str(save_dev(tmp_path / "train.tsv", 160))
    options: dict[str, object] = {
        **{"command": "teacher", "task": "SST-2", "train": train, "dev": train, "evaluations": 1, "epochs": 1.0},
        **{"encoder": str(save_teacher(tmp_path / "encoder")), "batch_size": 8, "loader_workers": 0, "lr": 1e-3},
    }
    run_ranks(options, tmp_path / "fast", 2)
    monkeypatch.setenv("SLOW_DISK", "1.5")
    run_ranks(options, tmp_path / "slow", 2)
    fast, slow = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("fast", "slow"))
    assert all(torch.equal(value, slow[name]) for name, value in fast.items())
    assert (tmp_path / "slow" / "best.pt").is_file()


def check_ranks(options: dict[str, object], folder: Path, worlds: tuple[int, ...]) -> None:
    """Train with each number of ranks, for at least 50 steps, and compare the weights with those of the first."""
    weights = []
    for world in worlds:
        output = folder / f"of-{world}"
        run_ranks(options, output, world)
        weights.append(load_file(output / "model" / "model.safetensors"))
        assert json.loads((output / "result.json").read_text())["steps"] >= 50
    for other in weights[1:]:
        assert weights[0].keys() == other.keys()
        for name, value in weights[0].items():
            if name.endswith("attention.self.key.bias"):
                # Softmax cancels it: its gradient is rounding alone, which Adam scales up to whole steps.
                continue
            assert torch.allclose(value, other[name], atol=1e-4, rtol=1e-3), name
