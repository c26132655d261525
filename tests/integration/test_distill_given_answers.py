"""`trainer distill --teacher-column`: an LLM's or a person's answers, from one file to a folder to hand on."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from tests.support.command import kill_when
from tests.support.pipeline import Workshop, labelled, run_command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SHARES = {"bad": "[0.12, 0.88]", "good": "[0.93, 0.07]"}
"""Probabilities of good and bad: not the sorted order."""
ORDER = ("--teacher-classes", "good", "bad")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


def result_of(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "result.json").read_text())
    return found


def weights(output: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(output / "model" / "model.safetensors")
    return found


def test_probabilities_in_an_order_that_is_told_and_a_kill(workshop: Workshop, tmp_path: Path) -> None:
    data = workshop.save("answered.csv", [{**row, "label_": SHARES[str(row["label"])]} for row in labelled()])
    options = ("--teacher-column", "label_", *ORDER, "--no-onnx", "--epochs", "2")
    output = tmp_path / "out"
    finished = run_command(*workshop.arguments(data, output, *options))
    assert finished.returncode == 0, finished.stderr
    assert "decided: column 'label_' holds probabilities of good, bad, in this order" in finished.stderr
    assert "teacher: the answers in column 'label_'" in finished.stderr
    assert "agreement" in finished.stdout
    result = result_of(output)
    assert set(result["minutes"]) == {"augment", "student", "report"}
    assert (result["teacher_parameters"], result["teacher_column"]) == (None, "label_")
    # The answers are right for every row, which a wrong order would turn round.
    assert result["teacher_metrics"]["accuracy"] == 1.0
    assert result["agreement"] == result["metrics"]["accuracy"]
    assert not (output / "teacher").exists()
    assert "column `label_`" in (output / "README.md").read_text()
    assert (output / "report.html").is_file()
    logits = torch.tensor(pq.read_table(output / "data" / "train.parquet")["label_"].to_pylist())
    assert logits.softmax(-1)[:, 0].sort().values[[0, -1]].tolist() == pytest.approx([0.12, 0.93])
    again = tmp_path / "again"
    begun = again / "student" / "config.json"
    kill_when(begun.exists, *workshop.arguments(data, again, *options), program="trainer")
    finished = run_command(*workshop.arguments(data, again, *options))
    assert finished.returncode == 0, finished.stderr
    first, second = weights(output), weights(again)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_hard_labels_and_a_test_file_without_answers(workshop: Workshop, tmp_path: Path) -> None:
    rows = labelled(200)
    data = workshop.save("hard.csv", [{**row, "person": row["label"]} for row in rows[:160]])
    test = workshop.save("bare.csv", rows[160:])
    options = ("--teacher-column", "person", "--test", str(test), "--no-onnx", "--no-report")
    finished = run_command(*workshop.arguments(data, tmp_path / "out", *options))
    assert finished.returncode == 0, finished.stderr
    assert "decided: column 'person' holds labels of bad, good, in this order" in finished.stderr
    result = result_of(tmp_path / "out")
    assert (result["agreement"], result["teacher_metrics"]) == (None, {})


def test_numbers(workshop: Workshop, tmp_path: Path) -> None:
    rows = [{**row, "label": index % 8 / 2, "gpt": index % 8 / 2 + 0.1} for index, row in enumerate(labelled())]
    data = workshop.save("numbers.csv", rows)
    options = ("--teacher-column", "gpt", "--regression", "--no-onnx", "--no-report")
    finished = run_command(*workshop.arguments(data, tmp_path / "out", *options))
    assert finished.returncode == 0, finished.stderr
    result = result_of(tmp_path / "out")
    assert result["teacher_metrics"]["pearson"] == pytest.approx(1.0)
    assert result["agreement"] == pytest.approx(result["metrics"]["pearson"], abs=1e-3)


def test_probabilities_of_several_labels(workshop: Workshop, tmp_path: Path) -> None:
    sizes = {"small": 0.9, "large": 0.2}
    rows = []
    for number, row in enumerate(labelled()):
        size, praise = ("small", "large")[number // 8 % 2], str(row["label"]) == "good"
        text = f"{row['text']} {size}"
        answers = json.dumps([0.8 if praise else 0.1, sizes[size]])
        rows.append({"text": text, "praise": int(praise), "small": int(size == "small"), "llm": answers})
    data = workshop.save("several.csv", rows)
    arguments = workshop.arguments(data, tmp_path / "out", "--teacher-column", "llm", "--no-onnx", "--epochs", "2")
    finished = run_command(*arguments, "--multi-label", "praise", "small")
    assert finished.returncode == 0, finished.stderr
    assert "decided: column 'llm' holds probabilities of praise, small, in this order" in finished.stderr
    result = result_of(tmp_path / "out")
    assert result["teacher_metrics"]["exact_match"] == 1.0
    assert 0 <= result["agreement"] <= 1
    assert "agreement with the given answers" in (tmp_path / "out" / "report.html").read_text()
    config = json.loads((tmp_path / "out" / "model" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert list(config["id2label"].values()) == ["praise", "small"]
    logits = torch.tensor(pq.read_table(tmp_path / "out" / "data" / "train.parquet")["llm"].to_pylist())
    assert sorted(set(logits.sigmoid().flatten().mul(10).round().int().tolist())) == [1, 2, 8, 9]


def test_rare_labels_get_more_samples(workshop: Workshop, tmp_path: Path) -> None:
    rows = [row for number, row in enumerate(labelled(300)) if row["label"] == "good" or number % 6 == 0]
    data, output = workshop.save("rare.csv", rows), tmp_path / "out"
    options = ("--n-a-per-label", "balance", "--no-onnx", "--no-report")
    finished = run_command(*workshop.arguments(data, output, *options))
    assert finished.returncode == 0, finished.stderr
    train = pq.read_table(output / "data" / "train.parquet")["label"].to_pylist()
    augmented = pa.concat_tables(
        [pa.ipc.open_file(path).read_all() for path in sorted((output / "augmented" / "shards").glob("*.arrow"))]
    )
    counts = Counter(augmented["label"].to_pylist())
    assert train.count("bad") < train.count("good") / 2
    assert counts["bad"] == pytest.approx(counts["good"], rel=0.25)
    assert result_of(output)["choices"]["n_a_per_label"]
