"""`trainer distill` on text pairs: pairs mined from the training texts, and answers that are stored once."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest

from tests.support.pipeline import QUICK, Workshop, labelled, run_command, sentences


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


def pairs(count: int) -> list[dict[str, object]]:
    """Rows of two texts, every third of which are the same."""
    texts = sentences(count)
    return [
        {"first": text, "second": text if row % 3 == 0 else texts[(row + 8) % count], "label": int(row % 3 == 0)}
        for row, text in enumerate(texts)
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_teacher_answers_pairs_that_no_row_has_and_each_sample_once(workshop: Workshop, tmp_path: Path) -> None:
    data, output = workshop.save("pairs.csv", pairs(140)), tmp_path / "out"
    quick = [*QUICK[:-3], "--prediction-epochs", "2", "--no-estimate"]
    arguments = ["distill", "--data", str(data), "--output", str(output), "--mlm", str(workshop.encoder), *quick]
    arguments += ["--glove", str(workshop.vectors), "--no-onnx", "--no-report", "--threads", "1", "--mined-pairs", "3"]
    arguments += ["--text-column", "first", "second", "--balance"]
    finished = run_command(*arguments)
    assert finished.returncode == 0, finished.stderr
    facts = json.loads((output / "result.json").read_text())["data"]
    mined = pq.read_table(output / "data" / "mined.parquet")
    assert 0 < mined.num_rows == facts["num_mined"] <= 3 * facts["num_train"]
    assert f"{mined.num_rows} new pairs mined from the training texts" in finished.stderr
    assert mined["label"].null_count == mined.num_rows
    found = list(zip(mined["first"].to_pylist(), mined["second"].to_pylist(), strict=True))
    assert len(set(found)) == len(found)
    assert not set(found) & {(row["first"], row["second"]) for row in pairs(140)}
    train = pq.read_table(output / "data" / "train.parquet")
    assert {first for first, _ in found} <= set(train["first"].to_pylist())
    assert {second for _, second in found} <= set(train["second"].to_pylist())
    shards = datasets.load_dataset(
        "arrow", data_files=str(output / "augmented" / "shards" / "*.arrow"), split="train", cache_dir=str(tmp_path)
    )
    sources = [row for row in shards if row["n"] == 0]
    assert len(sources) == train.num_rows + mined.num_rows
    assert {row["source_id"] for row in shards if row["n"] > 0} <= set(range(train.num_rows))
    assert "trainer annotate" in finished.stderr
    [annotations] = (output / "augmented" / "annotations").iterdir()
    answered = datasets.load_dataset(
        "arrow", data_files=str(annotations / "shards" / "*.arrow"), split="train", cache_dir=str(tmp_path)
    )
    assert len(answered) == len(shards)
    assert "the teacher's answers: 0 " in (output / "logs" / "annotate.log").read_text()
    result = json.loads((output / "student" / "result.json").read_text())
    # The intermediate stage reads every sample once, the prediction stage about as many of them in each pass.
    assert abs(result["samples"] - 3 * len(shards)) < 0.3 * len(shards)


def test_mined_pairs_that_cannot_be_are_one_line(workshop: Workshop, tmp_path: Path) -> None:
    single = workshop.save("single.csv", labelled(120))
    both = workshop.save("both.csv", [row | {"llm": row["label"]} for row in pairs(120)])
    columns = ("--text-column", "first", "second")
    for data, more, message in (
        (single, (), "needs text pairs, but"),
        (
            both,
            (*columns, "--teacher-column", "llm"),
            "--mined-pairs needs a teacher model, which --teacher-column replaces",
        ),
    ):
        refused = run_command(*workshop.arguments(data, tmp_path / "out", "--mined-pairs", "3", *more))
        assert refused.returncode == 2
        assert message in refused.stderr.splitlines()[-1]
        assert not (tmp_path / "out" / "data").exists()
