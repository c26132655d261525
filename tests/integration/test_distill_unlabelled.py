"""`trainer distill --unlabelled`: text without labels that the teacher answers for the student."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest

from tests.support.pipeline import Workshop, labelled, run_command, sentences


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_student_learns_from_texts_without_labels(workshop: Workshop, tmp_path: Path) -> None:
    data = workshop.save("reviews.csv", labelled(140))
    # The first 20 are labelled rows again, one of them in another case.
    texts = [
        text.upper() if place == 3 else text for place, text in enumerate(sentences(200)) if place not in range(20, 140)
    ]
    more = workshop.save("more.csv", [{"text": text} for text in texts])
    output = tmp_path / "out"
    arguments = workshop.arguments(data, output, "--unlabelled", str(more), "--no-onnx", "--no-report")
    finished = run_command(*arguments)
    assert finished.returncode == 0, finished.stderr
    assert "60 unlabelled rows for the teacher to label; 20 more are dropped" in finished.stderr
    with data.open(newline="") as file:
        known = {row["text"] for row in csv.DictReader(file)}
    found = pq.read_table(output / "data" / "unlabelled.parquet")
    assert set(found["text"].to_pylist()) == set(sentences(200)) - known
    assert found["label"].null_count == 60
    facts = json.loads((output / "result.json").read_text())["data"]
    shards = datasets.load_dataset(
        "arrow", data_files=str(output / "augmented" / "shards" / "*.arrow"), split="train", cache_dir=str(tmp_path)
    )
    sources = [row for row in shards if row["n"] == 0]
    assert len(sources) == facts["num_train"] + 60
    assert sum(row["label"] is None for row in sources) == 60
    assert not list((output / "augmented" / "quarantine").glob("*"))
    result = json.loads((output / "student" / "result.json").read_text())
    # One pass of each stage over every source and its two samples.
    assert result["samples"] == 2 * len(shards)
    assert run_command(*arguments).returncode == 0


def test_what_does_not_fit_is_one_line(workshop: Workshop, tmp_path: Path) -> None:
    data = workshop.save("small.csv", labelled(120))
    other = workshop.save("other.csv", [{"body": "a text"}])
    for more, message in (
        (("--unlabelled", str(other)), "--text-column text: no such column; the input has the columns body"),
        (("--unlabelled", str(tmp_path / "gone.csv")), "gone.csv"),
        (("--unlabelled", str(other), "--teacher-column", "x"), "--unlabelled needs a teacher model"),
    ):
        refused = run_command(*workshop.arguments(data, tmp_path / "out", *more))
        assert refused.returncode in (1, 2)
        assert message in refused.stderr.splitlines()[-1]
        assert "Traceback" not in refused.stderr
        assert not (tmp_path / "out" / "augmented").exists()
