"""`trainer` as a user runs it: real processes, real kills, a job that is still writing, wrong inputs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from shared.shards import list_commits, read_shard
from shared.storage.store import open_store
from tests.support.command import ROOT, call_main, run_command
from tests.support.distillation import (
    Output,
    metrics_of,
    save_dev,
    save_other_teacher,
    save_teacher,
    source_rows,
)
from trainer.result import read_result

STUDENT = "2,16,32,4"


class Story:
    """A teacher, its dev file, a finished augmentation output, and the options of a short run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.teacher = save_teacher(folder / "teacher")
        self.dev = save_dev(folder / "dev.tsv")
        self.augmented = folder / "augmented"
        Output(self.augmented, num_rows=60).finish()

    def arguments(self, output: Path, *more: str, augmented: Path | None = None, epochs: str = "2") -> list[str]:
        return [
            *("task", "--task", "SST-2", "--augmented", str(augmented or self.augmented)),
            *("--teacher", str(self.teacher), "--student", STUDENT, "--dev", str(self.dev), "--output", str(output)),
            *("--epochs", epochs, "--prediction-epochs", "1", "--lr", "1e-3", "--prediction-lr", "1e-3"),
            *("--batch-size", "8", "--window-shards", "2", "--loader-workers", "0", "--threads", "1", *more),
        ]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return Story(tmp_path_factory.mktemp("story"))


@pytest.fixture(scope="module")
def undisturbed(story: Story) -> Path:
    output = story.folder / "undisturbed"
    finished = call_main(*story.arguments(output), "--json", program="trainer")
    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout)
    assert result == json.loads((output / "result.json").read_text())
    assert result["samples"] == 3 * 60 * 4
    return output


def weights_of(output: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_file(output / "model" / "model.safetensors")
    return weights


def same_weights(one: Path, other: Path) -> bool:
    first, second = weights_of(one), weights_of(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_student_is_a_plain_transformers_folder_and_learned(story: Story, undisturbed: Path) -> None:
    student = transformers.AutoModelForSequenceClassification.from_pretrained(undisturbed / "model")
    assert (student.config.num_hidden_layers, student.config.hidden_size) == (2, 16)
    assert not any("projection" in name or "maps" in name for name in weights_of(undisturbed))
    tokenizer = transformers.AutoTokenizer.from_pretrained(undisturbed / "model")
    with torch.no_grad():
        logits = student(**tokenizer(["the good movie"], return_tensors="pt")).logits
    assert logits.shape == (1, 2)
    lines = metrics_of(undisturbed)
    by_stage = {
        stage: [line["loss"] for line in lines if line["stage"] == stage and "loss" in line]
        for stage in ("intermediate", "prediction")
    }
    assert all(losses[-1] < losses[0] or len(losses) == 1 for losses in by_stage.values())
    assert {"loss_attention", "loss_hidden", "loss_embedding"} <= lines[0].keys()
    finished = call_main(
        "evaluate",
        "--task",
        "SST-2",
        "--model",
        str(undisturbed / "model"),
        "--data",
        str(story.dev),
        program="trainer",
    )
    scored = json.loads(finished.stdout)
    assert scored["metrics"] == pytest.approx(json.loads((undisturbed / "result.json").read_text())["dev"])
    assert (scored["task"], scored["rows"]) == ("SST-2", 16)


def test_running_again_answers_from_the_result(story: Story, undisturbed: Path) -> None:
    before = (undisturbed / "metrics.jsonl").read_bytes()
    finished = call_main(*story.arguments(undisturbed), program="trainer")
    assert finished.returncode == 0, finished.stderr
    assert (undisturbed / "metrics.jsonl").read_bytes() == before
    other = call_main(*story.arguments(undisturbed, "--seed", "3"), program="trainer")
    assert other.returncode == 1
    assert "holds a run with a different seed (0, now 3)" in other.stderr


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["intermediate", "prediction"])
def test_killed_in_mid_epoch_and_resumed_gives_the_same_bits(
    story: Story, undisturbed: Path, tmp_path: Path, stage: str
) -> None:
    output = tmp_path / "killed"
    number = {"intermediate": "0", "prediction": "1"}[stage]
    more = ("--checkpoint-seconds", "0.001")
    killed = run_command(number, *story.arguments(output, *more), program="tests.support.killed_trainer")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (output / "result.json").exists()
    finished = run_command(*story.arguments(output, *more), program="trainer")
    assert finished.returncode == 0, finished.stderr
    assert "resumed" in finished.stderr
    assert same_weights(output, undisturbed)
    assert metrics_of(output) == metrics_of(undisturbed)


def test_training_that_starts_before_the_job_misses_nothing(story: Story, undisturbed: Path, tmp_path: Path) -> None:
    augmented, output = tmp_path / "later", tmp_path / "output"
    command = [sys.executable, "-m", "trainer", *story.arguments(output, augmented=augmented)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def write() -> None:
        while process.poll() is None and not (output / "config.json").exists():
            time.sleep(0.05)
        job = Output(augmented, num_rows=60)
        for shard in (1, 0, 2, 4, 3, 5, 6, 7, 9, 8):
            job.commit(shard)
            time.sleep(0.3)

    thread = threading.Thread(target=write)
    thread.start()
    _, errors = process.communicate(timeout=200)
    thread.join()
    assert process.returncode == 0, errors
    assert same_weights(output, undisturbed)


@pytest.mark.slow
def test_two_workers_through_ray_train_learn_the_same_curve(story: Story, undisturbed: Path, tmp_path: Path) -> None:
    output = tmp_path / "two"
    finished = run_command(*story.arguments(output, "--workers", "2"), program="trainer")
    assert finished.returncode == 0, finished.stderr
    one, two = metrics_of(undisturbed), metrics_of(output)
    assert [line["step"] for line in one] == [line["step"] for line in two]
    for first, second in zip(one, two, strict=True):
        for name in first:
            if name.startswith("loss"):
                assert second[name] == pytest.approx(first[name], rel=0.05), (first, second)


def test_parts_of_a_batch_add_up_to_the_batch(story: Story, tmp_path: Path) -> None:
    outputs = [tmp_path / "whole", tmp_path / "parts"]
    # Without dropout and in fp32 the two must agree but for rounding.
    for output, parts in zip(outputs, ("1", "3"), strict=True):
        more = ("--dropout", "0", "--dtype", "fp32", "--accumulate", parts, "--stages", "intermediate")
        finished = call_main(*story.arguments(output, *more, epochs="0.5"), program="trainer")
        assert finished.returncode == 0, finished.stderr
    whole, parts_ = weights_of(outputs[0]), weights_of(outputs[1])
    assert all(torch.allclose(whole[name], parts_[name], atol=2e-4) for name in whole)
    assert (outputs[0] / "model" / "projections.safetensors").exists()


@pytest.mark.parametrize("emit", ["samples", "candidates"])
def test_annotated_shards_need_no_teacher_in_the_prediction_stage(story: Story, tmp_path: Path, emit: str) -> None:
    augmented = tmp_path / "augmented"
    Output(augmented, num_rows=60, emit=emit).finish()
    annotate = ["annotate", "--augmented", str(augmented), "--teacher", str(story.teacher), "--dtype", "fp32"]
    finished = call_main(*annotate, "--n-a", "2", "--json", program="trainer")
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["annotated_rows"] == 60 * 3
    again = call_main(*annotate, "--n-a", "2", "--json", program="trainer")
    assert json.loads(again.stdout)["annotated_rows"] == 0
    more = call_main(*annotate, program="trainer")
    assert (more.returncode, "holds logits for 2 samples per row, but --n-a is 3" in more.stderr) == (2, True)
    losses = []
    for name, options in (("teacher", ()), ("annotated", ("--annotated",))):
        common = ("--stages", "prediction", "--dtype", "fp32", "--dropout", "0", "--n-a", "1")
        arguments = story.arguments(tmp_path / name, *common, *options, augmented=augmented)
        finished = call_main(*arguments, program="trainer")
        assert finished.returncode == 0, finished.stderr
        losses.append([line["loss"] for line in metrics_of(tmp_path / name) if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    arguments = story.arguments(tmp_path / "third", "--stages", "prediction", "--annotated", augmented=augmented)
    finished = call_main(*arguments, program="trainer")
    assert finished.returncode == 1
    assert "has no logits for sample 3 of row 0" in finished.stderr


@pytest.mark.parametrize(("kind", "student"), [("roberta", "embedded"), ("deberta-v2", "2,16,32,4")])
def test_a_teacher_of_another_architecture_answers_and_the_embedded_encoder_gives_the_states(
    tmp_path: Path, kind: str, student: str
) -> None:
    augmented, dev = tmp_path / "augmented", save_dev(tmp_path / "dev.tsv")
    Output(augmented, num_rows=24).finish()
    teacher = save_other_teacher(kind, tmp_path / "teacher")
    task = [
        *("task", "--augmented", str(augmented), "--teacher", str(teacher), "--student", student, "--epochs", "1"),
        *("--prediction-epochs", "1", "--dev", str(dev), "--text-column", "sentence", "--label-column", "label"),
        *("--output", str(tmp_path / "student"), *COMMON),
    ]
    refused = call_main(*task, program="trainer")
    assert refused.returncode == 2
    assert "Store its logits first (python -m trainer annotate --augmented" in refused.stderr
    assert not (tmp_path / "student").exists()
    train("annotate", "--augmented", str(augmented), "--teacher", str(teacher), "--dtype", "fp32", "--threads", "1")
    train(*task, "--annotated", "--hard-label-weight", "0.3")
    result = json.loads((tmp_path / "student" / "result.json").read_text())
    model = transformers.AutoModelForSequenceClassification.from_pretrained(teacher)
    assert result["teacher_parameters"] == sum(weight.numel() for weight in model.parameters())
    # What was stored is what plain transformers answers.
    tokenizer = transformers.AutoTokenizer.from_pretrained(teacher)
    rows = read_shard(open_store(str(augmented)), list_commits(open_store(str(augmented)))[0])
    (folder,) = (augmented / "annotations").iterdir()
    stored = read_shard(open_store(str(folder)), list_commits(open_store(str(folder)))[0])["logits"].to_pylist()
    for text, logits in zip(rows["text_a"].to_pylist()[:5], stored, strict=False):
        with torch.no_grad():
            wanted = (
                model.eval()(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).logits[0].tolist()
            )
        assert logits == pytest.approx(wanted, abs=1e-4)
    assert {"intermediate", "prediction"} <= {
        line["stage"] for line in metrics_of(tmp_path / "student") if "loss" in line
    }


def train(*arguments: str) -> None:
    finished = call_main(*arguments, program="trainer")
    assert finished.returncode == 0, finished.stderr


def corpus_of(folder: Path) -> Path:
    path = folder / "corpus.txt"
    path.write_text("\n".join(row.text_a for row in source_rows(200)) + "\n", encoding="utf-8")
    return path


COMMON = ("--threads", "1", "--loader-workers", "0", "--batch-size", "8")


def test_a_teacher_and_a_general_student_from_files(story: Story, tmp_path: Path) -> None:
    train(
        *("general", "--corpus", str(corpus_of(tmp_path)), "--teacher", str(story.teacher), "--student", STUDENT),
        *("--max-length", "32", "--output", str(tmp_path / "general"), "--lr", "1e-3", *COMMON),
    )
    data = tmp_path / "own.csv"
    data.write_text("review,stars\n" + "\n".join(f"{row.text_a},{row.label}" for row in source_rows(120)) + "\n")
    columns = ("--text-column", "review", "--label-column", "stars")
    train(
        *("teacher", *columns, "--train", str(data), "--dev", str(data), "--encoder", str(story.teacher)),
        *("--output", str(tmp_path / "tuned"), "--epochs", "6", "--lr", "2e-3", *COMMON),
    )
    result = read_result(tmp_path / "tuned")
    assert result is not None
    assert result.dev["accuracy"] > 0.7
    train(
        *("task", *columns, "--augmented", str(story.augmented), "--teacher", str(tmp_path / "tuned" / "model")),
        *("--student", str(tmp_path / "general" / "model"), "--dev", str(data)),
        *("--output", str(tmp_path / "task"), "--epochs", "1", *COMMON),
    )


@pytest.mark.parametrize("seed", [str(10**12), str(2**63 - 1)])
def test_every_command_takes_large_seeds(story: Story, tmp_path: Path, seed: str) -> None:
    more = ("--seed", seed, "--epochs", "0.2")
    train(*story.arguments(tmp_path / "task", "--prediction-epochs", "0.2", *more))
    train(
        *("teacher", "--task", "SST-2", "--train", str(story.dev), "--dev", str(story.dev), *more, *COMMON),
        *("--encoder", str(story.teacher), "--output", str(tmp_path / "teacher")),
    )
    train(
        *("general", "--corpus", str(corpus_of(tmp_path)), "--teacher", str(story.teacher), "--student", STUDENT),
        *("--output", str(tmp_path / "general"), "--max-length", "64", *more, *COMMON),
    )
    assert all((tmp_path / name / "model" / "config.json").is_file() for name in ("task", "teacher", "general"))


def test_a_damaged_result_is_one_clear_line(story: Story, undisturbed: Path, tmp_path: Path) -> None:
    output = tmp_path / "damaged"
    output.mkdir()
    (output / "config.json").write_bytes((undisturbed / "config.json").read_bytes())
    (output / "result.json").write_text("{")
    finished = call_main(*story.arguments(output), program="trainer")
    assert finished.returncode == 1
    assert "result.json is not valid JSON" in finished.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("--student", "2,15,32,4"), 2, "not a multiple of 4 heads"),
        (("--student", "2,16,32,2", "--attention-loss", "scores"), 2, "2 attention heads and the teacher 4"),
        (("--student", "tiny"), 2, "--student tiny: not a size"),
        (("--mapping", "9"), 2, "lists 1 layers, but the student has 2"),
        (("--teacher", "/nowhere"), 1, "--teacher /nowhere"),
        (("--task", "MNLI"), 1, "has 2 outputs, but --task MNLI needs 3 classes"),
        (("--stages", "both"), 2, "--stages"),
        (("--follow-timeout", "0", "--augmented", "/nowhere"), 1, "no augmentation job started"),
        (("--dev", "/nowhere.tsv"), 1, "/nowhere.tsv"),
        (("--lr", "1e30", "--dtype", "fp32"), 1, "the last checkpoint is kept"),
    ],
)
def test_wrong_inputs_are_one_clear_line(
    story: Story, tmp_path: Path, more: tuple[str, ...], code: int, message: str
) -> None:
    finished = call_main(*story.arguments(tmp_path / "out", *more), program="trainer")
    assert finished.returncode == code, finished.stderr
    assert message in finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.stderr
