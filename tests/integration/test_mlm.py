"""`trainer mlm`: learns, resumes bit for bit after a kill, splits over workers, saves what plain transformers loads."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from augment_service.engine.masked_lm import MaskedLM
from tests.support.command import call_main, kill_when, run_command
from tests.support.distillation import metrics_of, source_rows
from tests.support.models import save_random_model
from trainer.result import read_result


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("mlm")
    encoder = save_random_model("bert-uncased", folder / "encoder")
    corpus = folder / "corpus.txt"
    facts = ("the quick brown fox jumps over the lazy dog", "a great movie with a good plot and bad acting")
    lines = [f"{facts[row % 2]} ." for row in range(3000)] + [row.text_a for row in source_rows(200)]
    corpus.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [
        *("mlm", "--encoder", str(encoder), "--corpus", str(corpus), "--batch-size", "8", "--max-length", "32"),
        *("--lr", "3e-3", "--max-tokens", "24000", "--held-out", "0.1", "--dtype", "fp32", "--threads", "1"),
        *("--loader-workers", "0"),
    ]


def losses(output: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in metrics_of(output) if "loss" in line]


def weights_of(output: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_file(output / "model" / "model.safetensors")
    return weights


def train(*options: str, output: Path) -> Path:
    finished = call_main(*options, "--output", str(output), program="trainer")
    assert finished.returncode == 0, finished.stderr
    return output


@pytest.mark.parametrize("adapters", [pytest.param("0", marks=pytest.mark.slow), "4"])
def test_a_killed_training_ends_with_the_same_weights_and_curve(
    arguments: list[str], tmp_path: Path, adapters: str
) -> None:
    options = [*arguments, "--adapters", adapters, "--checkpoint-seconds", "0.3"]
    whole, killed = train(*options, output=tmp_path / "whole"), tmp_path / "killed"
    checkpoint = killed / "checkpoint.pt"
    status = kill_when(checkpoint.exists, *options, "--output", str(killed), program="trainer")
    assert status == -signal.SIGKILL
    assert not (killed / "model").exists()
    resumed = run_command(*options, "--output", str(killed), program="trainer")
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed" in resumed.stderr
    first, second = weights_of(whole), weights_of(killed)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert metrics_of(whole) == metrics_of(killed)
    assert losses(whole)[-1][1] < 0.7 * losses(whole)[0][1]
    model = transformers.AutoModelForMaskedLM.from_pretrained(whole / "model")
    assert type(model) is transformers.BertForMaskedLM
    MaskedLM.load(str(whole / "model"), "cpu", "fp32")
    refused = call_main(*options, "--output", str(whole), "--lr", "1", program="trainer")
    assert refused.returncode == 1
    assert "a different lr (0.003, now 1.0)" in refused.stderr


@pytest.mark.slow
def test_killed_within_an_epoch_while_a_loader_process_runs_ahead(arguments: list[str], tmp_path: Path) -> None:
    """The checkpoint before the kill is complete, the one during it is half written, and steps since are lost."""
    options = [*arguments, "--batch-size", "4", "--evaluate-tokens", "9000"]
    whole, output = train(*options, output=tmp_path / "whole"), tmp_path / "killed"
    frequent = [*options, "--loader-workers", "1", "--checkpoint-seconds", "0.001", "--output", str(output)]
    killed = run_command("0", *frequent, program="tests.support.killed_trainer")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = run_command(*frequent, program="trainer")
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed" in resumed.stderr
    assert all(torch.equal(value, weights_of(whole)[name]) for name, value in weights_of(output).items())
    assert metrics_of(output) == metrics_of(whole)


def test_metrics_and_result_hold_tokens_and_held_out_scores(arguments: list[str], tmp_path: Path) -> None:
    output = train(*arguments, "--evaluate-tokens", "9000", "--name", "domain", output=tmp_path)
    lines = metrics_of(output)
    held_out = [line for line in lines if "held_out" in line]
    assert [line["tokens"] // 9000 for line in held_out] == [1, 2, 2]
    assert lines[-1]["tokens"] == held_out[-1]["tokens"] >= 24_000
    result = read_result(output)
    assert result is not None
    assert (result.command, result.name, result.tokens) == ("mlm", "domain", lines[-1]["tokens"])
    assert result.held_out is not None
    assert result.held_out["corpus.txt"].top_1 == held_out[-1]["held_out"]["corpus.txt"]["top_1"]
    assert list((output / "tensorboard").iterdir())
    again = call_main(*arguments, "--output", str(output), "--json", program="trainer")
    assert json.loads(again.stdout) == result.to_json() | {"model": str(output / "model")}
    assert metrics_of(output) == lines


def same_curve_and_weights(output: Path, whole: Path) -> None:
    """Equal up to the rounding of sums in another order, which the optimizer amplifies where gradients are tiny."""
    assert [step for step, _ in losses(output)] == [step for step, _ in losses(whole)]
    for (_, own), (_, expected) in zip(losses(output), losses(whole), strict=True):
        assert own == pytest.approx(expected, rel=1e-3)
    first, second = weights_of(output), weights_of(whole)
    for name, value in first.items():
        assert (value - second[name]).norm() <= 1e-3 * second[name].norm() + 1e-5, name


SHORT = ("--max-tokens", "6000", "--lr", "3e-4")


def test_parts_of_a_batch_add_up_to_the_batch(arguments: list[str], tmp_path: Path) -> None:
    options = [*arguments, *SHORT]
    whole = train(*options, output=tmp_path / "whole")
    same_curve_and_weights(train(*options, "--accumulate", "2", output=tmp_path / "parts"), whole)


@pytest.mark.slow
def test_two_workers_through_ray_train_end_with_the_weights_of_one(arguments: list[str], tmp_path: Path) -> None:
    options, output = [*arguments, *SHORT], tmp_path / "two"
    whole = train(*options, output=tmp_path / "whole")
    finished = run_command(*options, "--workers", "2", "--output", str(output), program="trainer")
    assert finished.returncode == 0, finished.stderr
    same_curve_and_weights(output, whole)


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("--corpus-weights", "1", "2"), 2, "--corpus-weights has 2 numbers for 1 files of --corpus"),
        (("--corpus-weights", "0"), 2, "not all 0"),
        (("--evaluate-files", "other.txt"), 2, "--evaluate-files other.txt is not one of the files of --corpus"),
        (("--corpus", "/nowhere.txt", "--corpus-weights", "1", "1"), 1, "--corpus /nowhere.txt"),
        (("--lr", "1e30"), 1, "the last checkpoint is kept"),
    ],
)
def test_wrong_inputs_are_one_clear_line(
    arguments: list[str], tmp_path: Path, more: tuple[str, ...], code: int, message: str
) -> None:
    finished = call_main(*arguments, "--output", str(tmp_path / "out"), *more, program="trainer")
    assert finished.returncode == code, finished.stderr
    assert message in finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.stderr


def test_the_largest_seed_trains(arguments: list[str], tmp_path: Path) -> None:
    output = train(*arguments, *SHORT, "--seed", str(2**63 - 1), output=tmp_path / "out")
    assert read_result(output) is not None
