"""`trainer distill` as a user runs it: from one file to a folder that can be handed on; kills; signals."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.classifiers import save_classifier_of
from tests.support.command import ROOT, descendants_of, kill_when
from tests.support.distillation import save_other_teacher
from tests.support.pipeline import Workshop, labelled, run_command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

QUICK = ("--no-onnx", "--no-report")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module")
def reviews(workshop: Workshop) -> Path:
    return workshop.save("reviews.csv", labelled())


@pytest.fixture(scope="module")
def undisturbed(workshop: Workshop, reviews: Path) -> Path:
    output = workshop.folder / "undisturbed"
    finished = run_command(*workshop.arguments(reviews, output))
    assert finished.returncode == 0, finished.stderr
    (workshop.folder / "said.txt").write_text(finished.stderr + finished.stdout, encoding="utf-8")
    return output


def weights(output: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(output / "model" / "model.safetensors")
    return found


def test_one_file_becomes_a_folder_to_hand_on(workshop: Workshop, undisturbed: Path) -> None:
    said = (workshop.folder / "said.txt").read_text(encoding="utf-8")
    assert "2 classes: bad 80, good 80" in said
    assert "decided: the label is column 'label'" in said
    assert "python -m augment_service run --input" in said
    result = json.loads((undisturbed / "result.json").read_text())
    assert set(result["metrics"]) == {"accuracy", "f1_macro"} == set(result["teacher_metrics"])
    assert set(result["minutes"]) == {"teacher", "augment", "student", "export onnx", "export int8", "report"}
    assert result["faster"].keys() == {"1", "32"}
    for name in ("model/config.json", "onnx/model.onnx", "onnx/model-int8.onnx", "report.html", "README.md"):
        assert (undisturbed / name).is_file(), name
    texts = workshop.save("new.csv", [{"text": row["text"], "id": index} for index, row in enumerate(labelled(20))])
    answers = []
    for model in ("model", "onnx/model.onnx"):
        output = workshop.folder / "answers.jsonl"
        finished = run_command(
            *("predict", "--model", str(undisturbed / model), "--data", str(texts), "--text-column", "text"),
            *("--output", str(output)),
        )
        assert finished.returncode == 0, finished.stderr
        answers.append([json.loads(line) for line in output.read_text().splitlines()])
    assert [one["predicted_label"] for one in answers[0]] == [one["predicted_label"] for one in answers[1]]


def test_the_same_command_again_does_nothing_and_another_one_is_refused(
    workshop: Workshop, reviews: Path, undisturbed: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (undisturbed / "student").rglob("*") if path.is_file()}
    finished = run_command(*workshop.arguments(reviews, undisturbed))
    assert finished.returncode == 0, finished.stderr
    assert "student: already done" in finished.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    other = run_command(*workshop.arguments(reviews, undisturbed, "--seed", "7"))
    assert (other.returncode, "holds a run with a different seed (0, now 7)" in other.stderr) == (1, True)


# The teacher and the export are killed in a run into a bucket (test_remote_distill.py), by the same code.
def test_killed_in_two_steps_and_run_again_it_ends_with_the_same_weights(
    workshop: Workshop, reviews: Path, undisturbed: Path
) -> None:
    before = weights(undisturbed)
    for name in ("student", "onnx", "model"):
        shutil.rmtree(undisturbed / name)
    command = workshop.arguments(reviews, undisturbed)
    waits = [kill_at_random(command, undisturbed / step) for step in ("augmented", "student")]
    finished = run_command(*command)
    assert finished.returncode == 0, (waits, finished.stderr)
    after = weights(undisturbed)
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == [], waits


def kill_at_random(command: list[str], folder: Path) -> float:
    """SIGKILL some seconds after the folder of a step was made again; returns how many."""
    shutil.rmtree(folder, ignore_errors=True)
    wait, seen = random.Random(time.time_ns()).uniform(0.0, 6.0), list[float]()

    def is_time() -> bool:
        if folder.exists() and not seen:
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() - seen[0] > wait

    kill_when(is_time, *command, program="trainer")
    return wait


def test_no_step_outlives_the_command(workshop: Workshop, reviews: Path, tmp_path: Path) -> None:
    output = tmp_path / "stopped"
    arguments = workshop.arguments(reviews, output, "--prediction-epochs", "50")
    for how in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        shutil.rmtree(output / "student", ignore_errors=True)
        check_no_step_outlives(arguments, output / "student" / "config.json", how)


def check_no_step_outlives(arguments: list[str], file: Path, how: signal.Signals) -> None:
    """Signals the command when `file` exists."""
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", *arguments],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 200
    while not file.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = [pid for pid in descendants_of(process.pid) if not _is_agent_of_ray(pid)]
    assert children
    process.send_signal(how)
    process.communicate(timeout=100)
    assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 130)
    while alive := [pid for pid in children if _is_alive(pid)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.1)


def _is_agent_of_ray(pid: int) -> bool:
    """Two of Ray's agents end by themselves a minute after the rest of Ray (docs/operations.md)."""
    try:
        # Before an agent gives itself a title, it is Python with Ray's agent.py or runtime_env/agent/main.py.
        return b"agent" in Path(f"/proc/{pid}/cmdline").read_bytes().lower()
    except OSError:
        return False


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def result_of(workshop: Workshop, data: Path, output: Path, *more: str) -> dict[str, Any]:
    finished = run_command(*workshop.arguments(data, output, *QUICK, *more))
    assert finished.returncode == 0, finished.stderr
    found: dict[str, Any] = json.loads((output / "result.json").read_text())
    return found


def test_many_classes(workshop: Workshop, tmp_path: Path) -> None:
    names = [f"topic {letter}" for letter in "abcd"]
    data = workshop.save("topics.csv", labelled(240, names))
    result = result_of(workshop, data, tmp_path / "out")
    assert result["data"]["num_classes"] == 4
    config = json.loads((tmp_path / "out" / "model" / "config.json").read_text())
    assert sorted(config["id2label"].values()) == names


def test_pairs_with_a_number_to_predict(workshop: Workshop, tmp_path: Path) -> None:
    rows = labelled(200)
    pairs = [
        {"sentence1": row["text"], "sentence2": other["text"], "score": index % 8 / 2, "note": "not used"}
        for index, (row, other) in enumerate(zip(rows, reversed(rows), strict=True))
    ]
    result = result_of(workshop, workshop.save("pairs.csv", pairs), tmp_path / "out", "--regression")
    assert result["data"]["text_columns"] == ["sentence1", "sentence2"]
    assert set(result["metrics"]) == {"pearson", "spearman"}


def test_a_teacher_of_ones_own(workshop: Workshop, reviews: Path, undisturbed: Path, tmp_path: Path) -> None:
    teacher = undisturbed / "teacher" / "model"
    result = result_of(workshop, reviews, tmp_path / "out", "--teacher", str(teacher))
    assert "teacher" not in result["minutes"]
    assert result["teacher_metrics"]


def test_a_teacher_of_another_architecture(workshop: Workshop, reviews: Path, tmp_path: Path) -> None:
    teacher = save_other_teacher("roberta", tmp_path / "roberta", labels=("bad", "good"))
    output = tmp_path / "out"
    command = workshop.arguments(reviews, output, "--no-onnx", "--teacher", str(teacher), "--student", "embedded")
    finished = run_command(*command)
    assert finished.returncode == 0, finished.stderr
    assert "the student has a different vocabulary: the student learns its answers" in finished.stderr
    result = json.loads((output / "result.json").read_text())
    assert {"annotate", "student"} <= set(result["minutes"])
    assert result["teacher_metrics"]
    assert set(result["faster"]) == {"1", "32"}
    # Killed between a command and its mark, it is asked again, and finds its answers stored.
    (output / "annotated.done").unlink()
    again = run_command(*command)
    assert again.returncode == 0, again.stderr
    assert "0 rows annotated" in again.stderr


def test_a_teacher_that_is_built_like_a_bert_is_asked_for_its_states(
    workshop: Workshop, reviews: Path, tmp_path: Path
) -> None:
    teacher = save_classifier_of("distilbert", tmp_path / "distilbert", labels=("bad", "good"))
    output = tmp_path / "out"
    command = workshop.arguments(reviews, output, *QUICK, "--teacher", str(teacher))
    finished = run_command(*command)
    assert finished.returncode == 0, finished.stderr
    assert "with the student's vocabulary: the student learns its hidden states and its answers" in finished.stderr
    assert "trainer annotate" not in finished.stderr
    result = json.loads((output / "result.json").read_text())
    assert "annotate" not in result["minutes"]
    assert result["teacher_metrics"]
    before = weights(output)
    for name in ("student", "model"):
        shutil.rmtree(output / name)
    kill_when((output / "student" / "metrics.jsonl").exists, *command, program="trainer")
    assert not (output / "model").exists()
    again = run_command(*command)
    assert again.returncode == 0, again.stderr
    after = weights(output)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


def test_an_encoder_that_cannot_be_fine_tuned_here_is_refused(
    workshop: Workshop, reviews: Path, tmp_path: Path
) -> None:
    encoder = save_other_teacher("roberta", tmp_path / "roberta")
    finished = run_command(*workshop.arguments(reviews, tmp_path / "out", "--encoder", str(encoder)))
    assert finished.returncode != 0
    assert "`trainer teacher` fine-tunes only BERT models" in finished.stderr.splitlines()[-1]
    # Nothing but the lock.
    assert [one.name for one in (tmp_path / "out").iterdir()] == [".lock"]
