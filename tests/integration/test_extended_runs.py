"""A finished run goes on when --epochs is raised, stage by stage; the learning rate of each stage has its schedule."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.command import call_main
from tests.support.distillation import Output, metrics_of, save_dev, save_teacher, source_rows

COMMON = ("--threads", "1", "--loader-workers", "0", "--batch-size", "8", "--device", "cpu", "--dtype", "fp32")


class Story:
    """Inputs of every training command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.teacher = str(save_teacher(folder / "teacher"))
        self.dev = str(save_dev(folder / "dev.tsv"))
        Output(folder / "augmented", num_rows=40).finish()
        (folder / "corpus.txt").write_text("\n".join(row.text_a for row in source_rows(200)) + "\n")

    def task(self, output: str, epochs: str, prediction_epochs: str, *more: str) -> list[str]:
        return [
            *("task", "--task", "SST-2", "--augmented", str(self.folder / "augmented"), "--teacher", self.teacher),
            *("--student", "2,16,32,4", "--dev", self.dev, "--evaluations", "2", "--window-shards", "2", *COMMON),
            *("--output", str(self.folder / output), "--epochs", epochs, "--prediction-epochs", prediction_epochs),
            *("--lr", "1e-3", "--prediction-lr", "1e-3", *more),
        ]

    def commands(self, output: str, epochs: str, *more: str) -> dict[str, list[str]]:
        """One short run of each command of a single stage."""
        common = ["--epochs", epochs, "--output", str(self.folder / output), *COMMON, *more]
        corpus = ["--corpus", str(self.folder / "corpus.txt"), "--max-length", "32"]
        scored = ("--validation-share", "0.3", "--evaluations", "1")
        return {
            "teacher": ["teacher", "--task", "SST-2", "--train", self.dev, "--encoder", self.teacher, *common, *scored],
            "general": ["general", *corpus, "--teacher", self.teacher, "--student", "2,16,32,4", *common],
            "mlm": ["mlm", *corpus, "--encoder", self.teacher, *common],
        }


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return Story(tmp_path_factory.mktemp("story"))


def done(arguments: list[str]) -> None:
    finished = call_main(*arguments, program="trainer")
    assert finished.returncode == 0, finished.stderr


def same_weights(one: Path, other: Path) -> bool:
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def rates(output: Path, stage: str) -> list[float]:
    return [line["lr"] for line in metrics_of(output) if line["stage"] == stage and "lr" in line]


@pytest.mark.parametrize("grown", [("3", "1"), ("1", "2.5"), ("2.5", "3")])
def test_an_extended_run_has_the_weights_of_a_run_that_was_long_from_the_start(
    story: Story, tmp_path: Path, grown: tuple[str, str]
) -> None:
    constant = ("--schedule", "constant", "--prediction-schedule", "constant")
    story.folder, folder = tmp_path, story.folder
    try:
        for name in ("augmented", "teacher", "dev.tsv"):
            (tmp_path / name).symlink_to(folder / name)
        done(story.task("long", *grown, *constant))
        done(story.task("extended", "1", "1", *constant))
        before = json.loads((tmp_path / "extended" / "result.json").read_text())
        done(story.task("extended", *grown, *constant))
    finally:
        story.folder = folder
    after, wanted = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("extended", "long"))
    assert after["steps"] == wanted["steps"] > before["steps"]
    assert after["samples"] == wanted["samples"]
    assert same_weights(tmp_path / "extended", tmp_path / "long")
    assert json.loads((tmp_path / "extended" / "config.json").read_text())["epochs"] == float(grown[0])
    assert set(rates(tmp_path / "long", "intermediate") + rates(tmp_path / "long", "prediction")) == {1e-3}


@pytest.mark.parametrize("command", ["teacher", "general", "mlm"])
def test_every_command_can_be_extended(story: Story, command: str) -> None:
    output = story.folder / f"run-{command}"
    done(story.commands(output.name, "1")[command])
    before = json.loads((output / "result.json").read_text())["steps"]
    done(story.commands(output.name, "2")[command])
    assert json.loads((output / "result.json").read_text())["steps"] == pytest.approx(2 * before, abs=2)


def test_a_linear_schedule_goes_on_at_the_rate_of_the_longer_run(story: Story) -> None:
    done(story.task("linear", "1", "1"))
    short = rates(story.folder / "linear", "intermediate")
    done(story.task("linear", "4", "1"))
    long = rates(story.folder / "linear", "intermediate")
    assert short[-1] < 0.1e-3, "it had fallen nearly to zero"
    assert max(long[len(short) :]) > 4 * short[-1], "with four passes it is still high after the first"
    assert long[-1] < 0.1e-3


def test_fewer_epochs_are_refused_and_equal_ones_print_the_result(story: Story) -> None:
    done(story.task("fixed", "2", "1"))
    made = (story.folder / "fixed" / "model" / "model.safetensors").stat().st_mtime_ns
    done(story.task("fixed", "2", "1"))
    assert (story.folder / "fixed" / "model" / "model.safetensors").stat().st_mtime_ns == made
    finished = call_main(*story.task("fixed", "1", "1"), program="trainer")
    assert finished.returncode == 1
    assert "holds a run with a different epochs (2.0, now 1.0)" in finished.stderr


def test_a_run_without_the_end_of_its_stages_is_not_extended(story: Story) -> None:
    done(story.task("old", "1", "1"))
    output = story.folder / "old"
    (output / "checkpoint-1-intermediate.pt").unlink()
    finished = call_main(*story.task("old", "2", "1"), program="trainer")
    assert finished.returncode == 1
    assert "checkpoint-1-intermediate.pt is missing" in finished.stderr.splitlines()[-1]
    options = json.loads((output / "config.json").read_text())
    del options["keeps_stages"]
    (output / "config.json").write_text(json.dumps(options))
    finished = call_main(*story.task("old", "3", "1"), program="trainer")
    assert finished.returncode == 1
    assert "holds a run of an earlier version, which cannot be extended" in finished.stderr.splitlines()[-1]


def test_one_schedule_is_given(story: Story) -> None:
    arguments = story.commands("both", "1", "--schedule", "constant", "--decay-share", "0.5")["general"]
    finished = call_main(*arguments, program="trainer")
    assert finished.returncode == 2
    assert "cannot be combined with --schedule constant" in finished.stderr.splitlines()[-1]
