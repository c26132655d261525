"""`trainer mlm`: learns, resumes bit for bit after a kill, and leaves what plain transformers loads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers

from augment_service.engine.masked_lm import MaskedLM
from tests.support.command import kill_when, run_command
from tests.support.models import save_random_model


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("mlm")
    encoder = save_random_model("bert-uncased", folder / "encoder")
    corpus = folder / "corpus.txt"
    facts = ("the quick brown fox jumps over the lazy dog", "a great movie with a good plot and bad acting")
    corpus.write_text("".join(f"{facts[row % 2]} .\n" for row in range(3000)), encoding="utf-8")
    return [
        "mlm", "--encoder", str(encoder), "--corpus", str(corpus), "--batch-size", "8", "--max-length", "32", "--lr",
        "3e-3", "--max-tokens", "24000", "--held-out", "0.1", "--dtype", "fp32", "--threads", "1",
    ]  # fmt: skip


def losses(output: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


@pytest.mark.parametrize("adapters", ["0", "4"])
def test_a_killed_training_ends_with_the_same_weights_and_curve(
    arguments: list[str], tmp_path: Path, adapters: str
) -> None:
    options = [*arguments, "--adapters", adapters, "--checkpoint-seconds", "0.3"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finished = run_command(*options, "--output", str(whole), program="trainer")
    assert finished.returncode == 0, finished.stderr
    checkpoint = killed / "checkpoint.pt"
    status = kill_when(checkpoint.exists, *options, "--output", str(killed), program="trainer")
    assert status == -9
    assert not (killed / "model").exists()
    resumed = run_command(*options, "--output", str(killed), program="trainer")
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed" in resumed.stderr
    weights = [torch.load(folder / "checkpoint.pt", weights_only=True)["weights"] for folder in (whole, killed)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert losses(whole) == losses(killed)
    assert losses(whole)[-1][1] < 0.7 * losses(whole)[0][1]
    model = transformers.AutoModelForMaskedLM.from_pretrained(whole / "model")
    assert type(model) is transformers.BertForMaskedLM
    MaskedLM.load(str(whole / "model"), "cpu", "fp32")
    refused = run_command(*options, "--output", str(whole), "--lr", "1", program="trainer")
    assert refused.returncode == 1
    assert "another lr (0.003, now 1.0)" in refused.stderr
