"""Several labels per text, from a file to predictions: lists in JSONL, and columns of 0 and 1 in CSV."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import transformers

import trainer
from tests.support.command import ROOT
from tests.support.distillation import ADJECTIVES, NOUNS, save_teacher
from tests.support.pipeline import Workshop, run_command, sentences

LABELS = ("animals", "praise", "size")
ANIMALS, PRAISE, SIZE = ("fox", "dog", "cat"), ("good", "great"), ("small",)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


def labels_of(text: str) -> list[str]:
    """The labels of a sentence, by its words."""
    words = set(text.split())
    named = zip(LABELS, (ANIMALS, PRAISE, SIZE), strict=True)
    return [name for name, members in named if words & set(members)]


def succeed(*arguments: str) -> dict[str, Any]:
    """The summary of a command that must end well."""
    finished = run_command(*arguments, "--json")
    assert finished.returncode == 0, finished.stderr
    summary: dict[str, Any] = json.loads(finished.stdout)
    return summary


def save_lists(path: Path, texts: Sequence[str]) -> Path:
    lines = [json.dumps({"text": text, "labels": labels_of(text)}) for text in texts]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_teacher_of_columns_of_0_and_1_is_scored_and_answers(workshop: Workshop, tmp_path: Path) -> None:
    rows = [{"text": text} | {name: int(name in labels_of(text)) for name in LABELS} for text in sentences(224)]
    data = workshop.save("flags.csv", rows)
    columns = ["--text-column", "text", "--multi-label", *LABELS]
    quick = ["--batch-size", "16", "--threads", "1", "--dtype", "fp32", "--lr", "3e-3", "--epochs", "24"]
    result = succeed(
        *("teacher", "--train", str(data), "--dev", str(data), "--encoder", str(workshop.encoder), *columns),
        *(*quick, "--evaluations", "1", "--output", str(tmp_path / "run")),
    )
    assert result["task"] == "multi-label"
    assert set(result["labels"]) == set(LABELS)
    assert result["selected_by"] == "the mean of f1_micro and f1_macro and exact_match"
    model = str(tmp_path / "run" / "model")
    scores = succeed("evaluate", "--model", model, "--data", str(data), *columns, "--dtype", "fp32")
    assert scores["metrics"]["f1_micro"] > 0.9 > scores["baselines"]["all"]["f1_micro"]
    assert scores["labels"] == result["labels"]
    assert scores["labels"]["animals"]["support"] == sum(row["animals"] == 1 for row in rows)
    # Lists of the same labels are scored alike.
    lists = save_lists(tmp_path / "lists.jsonl", [str(row["text"]) for row in rows])
    named = ("--text-column", "text", "--label-column", "labels", "--dtype", "fp32")
    assert succeed("evaluate", "--model", model, "--data", str(lists), *named)["metrics"] == scores["metrics"]

    new = [str(row["text"]) for row in rows[::9]]
    texts = workshop.save("new.csv", [{"text": text} for text in new])
    for name, threshold in (("half.jsonl", "0.5"), ("strict.jsonl", "0.9")):
        succeed(
            *("predict", "--model", model, "--data", str(texts), "--text-column", "text", "--dtype", "fp32"),
            *("--threshold", threshold, "--output", str(tmp_path / name)),
        )
        for line in (tmp_path / name).read_text().splitlines():
            answer = json.loads(line)
            probabilities = {label: answer[f"probability_{label}"] for label in LABELS}
            assert answer["predicted_labels"] == [one for one in LABELS if probabilities[one] >= float(threshold)]
    pipeline = transformers.pipeline("text-classification", model=model, top_k=None)
    for text, found in zip(new, trainer.load_student(model, dtype="fp32").predict(new), strict=True):
        plain = {one["label"]: one["score"] for one in pipeline([text])[0]}
        assert found.label is None
        assert found.labels == tuple(one for one in LABELS if plain[one] > 0.5)
        assert dict(found.probabilities) == pytest.approx(plain, abs=1e-4)


def test_a_mix_of_kinds_is_refused_in_one_line(workshop: Workshop, tmp_path: Path) -> None:
    lists = save_lists(tmp_path / "lists.jsonl", sentences(40))
    single = str(save_teacher(tmp_path / "single"))
    for arguments, message in (
        (("evaluate", "--model", single, "--data", str(lists), "--label-column", "labels"), "a list of labels, but"),
        (("evaluate", "--model", single, "--data", str(lists)), "pass --task, or name the columns"),
    ):
        finished = run_command(*arguments, "--text-column", "text")
        assert finished.returncode in (1, 2)
        assert message in finished.stderr.splitlines()[-1]
        assert "Traceback" not in finished.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_distill_with_lists_of_labels(workshop: Workshop, tmp_path: Path) -> None:
    assert set(ANIMALS) < set(NOUNS)
    assert set(PRAISE + SIZE) < set(ADJECTIVES)
    data = save_lists(tmp_path / "lists.jsonl", sentences(200))
    output = tmp_path / "out"
    arguments = workshop.arguments(data, output, "--label-column", "labels")
    finished = run_command(*arguments)
    assert finished.returncode == 0, finished.stderr
    assert "3 labels, any number per row: " in finished.stderr
    assert "mixed_json_column" not in finished.stderr
    result = json.loads((output / "result.json").read_text())
    assert set(result["metrics"]) == {"f1_micro", "f1_macro", "exact_match"} == set(result["teacher_metrics"])
    config = json.loads((output / "model" / "config.json").read_text())
    assert (config["problem_type"], config["id2label"]) == (
        "multi_label_classification",
        {"0": "animals", "1": "praise", "2": "size"},
    )
    assert json.loads((output / "onnx" / "model.json").read_text())["problem_type"] == "multi_label_classification"
    assert "labels (any number per text)" in (output / "model" / "README.md").read_text()
    report = (output / "report.html").read_text()
    assert "exact_match" in report
    assert "rows with the label" in report
    texts = workshop.save("unseen.csv", [{"text": text} for text in sentences(30)])
    answers = []
    for model in ("model", "onnx/model.onnx"):
        succeed(
            *("predict", "--model", str(output / model), "--data", str(texts), "--text-column", "text"),
            *("--dtype", "fp32", "--threshold", "0.4", "--output", str(tmp_path / "answers.jsonl")),
        )
        answers.append([json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()])
    for first, second in zip(*answers, strict=True):
        assert first["predicted_labels"] == second["predicted_labels"]
        assert first["probability_size"] == pytest.approx(second["probability_size"], abs=1e-4)
    before = (output / "model" / "model.safetensors").read_bytes()
    again = run_command(*arguments)
    assert again.returncode == 0, again.stderr
    assert (output / "model" / "model.safetensors").read_bytes() == before


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_prediction_loss_of_task_learns_from_stored_and_hard_labels(workshop: Workshop, tmp_path: Path) -> None:
    data = save_lists(tmp_path / "lists.jsonl", sentences(96))
    columns = ("--text-column", "text", "--label-column", "labels")
    quick = ("--batch-size", "16", "--threads", "1", "--dtype", "fp32")
    succeed(
        *("teacher", "--train", str(data), "--dev", str(data), "--encoder", str(workshop.encoder), *columns, *quick),
        *("--epochs", "1", "--evaluations", "1", "--output", str(tmp_path / "teacher")),
    )
    program = [sys.executable, "-m", "augment_service", "run", "--input", str(data), *columns, "--n-a", "2"]
    models = ["--mlm", str(workshop.encoder), "--glove", str(workshop.vectors)]
    job = subprocess.run(
        [*program, *models, "--output", str(tmp_path / "shards")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert job.returncode == 0, job.stderr
    teacher = str(tmp_path / "teacher")
    succeed("annotate", "--augmented", str(tmp_path / "shards"), "--teacher", teacher, "--threads", "1")
    task = ("task", "--augmented", str(tmp_path / "shards"), "--teacher", teacher, "--student", "2,16,32,4", *columns)
    for name, more in (("soft", ("--annotated",)), ("hard", ("--hard-label-weight", "0.5"))):
        result = succeed(
            *(*task, *quick, *more, "--dev", str(data), "--epochs", "1", "--prediction-epochs", "1"),
            *("--output", str(tmp_path / name)),
        )
        assert set(result["dev"]) == {"f1_micro", "f1_macro", "exact_match"}
