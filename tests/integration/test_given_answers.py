"""`trainer task --teacher-column`: a student of answers that came with the data, in place of a teacher."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import transformers

from tests.support.command import call_main
from tests.support.distillation import Output, save_teacher, source_rows
from trainer import load_student
from trainer.data.augmented import open_augmented
from trainer.data.given_answers import GivenAnswers
from trainer.data.stream import ShardStream
from trainer.data.tasks import TaskSpec
from trainer.models import load_tokenizer

NAMES = ("0", "1")
SHARE = [0.05 + 0.9 * (index % 7) / 6 for index in range(40)]
"""Probability of class 1 of each row."""


def save_file(path: Path, answers: list[str]) -> Path:
    """Labelled rows with a column of answers, as CSV."""
    rows = source_rows(len(answers))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["sentence", "label", "llm"])
        writer.writerows([row.text_a, row.label, answer] for row, answer in zip(rows, answers, strict=True))
    return path


def as_lists(count: int) -> list[list[float]]:
    return [[round(1 - share, 2), round(share, 2)] for share in SHARE[:count]]


def as_text(count: int) -> list[str]:
    return [json.dumps(one) for one in as_lists(count)]


@pytest.mark.parametrize("emit", ["samples", "candidates"])
@pytest.mark.parametrize("column", ["llm", "label"])
def test_a_sample_has_the_answer_of_its_row(tmp_path: Path, emit: str, column: str) -> None:
    # The job has renamed an input column `label` that was not the label.
    stored = {"llm": "llm", "label": "label_input"}[column]
    Output(tmp_path / "augmented", emit=emit, more=pa.table({stored: as_lists(40)})).finish()
    teacher = save_teacher(tmp_path / "teacher")
    stream = ShardStream(
        augmented=open_augmented(str(tmp_path / "augmented"), 0.0),
        spec=TaskSpec(name="classification", labels=NAMES, metrics=("accuracy",)),
        tokenizer=load_tokenizer(str(teacher)),
        max_length=32,
        batch_size=4,
        window_shards=2,
        seed=9,
        follow_timeout=0.0,
        pad_id=0,
        answers=GivenAnswers(column=column, form="probabilities", labels=NAMES),
    )
    seen = 0
    for epoch in (0, 1):
        for number in range(stream.num_windows(epoch)):
            window = stream.prepare(epoch, number)
            for place in range(window.num_batches):
                batch = window.part(place)
                assert batch is not None
                assert batch.logits is not None
                shares = batch.logits.softmax(-1)[:, 1].tolist()
                assert shares == pytest.approx([SHARE[int(row)] for row, _ in batch.keys], abs=0.006)
                seen += len(batch.keys)
    assert seen == 2 * 40 * 4


class Setting:
    """An augmentation output with answers, and labelled files with and without them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.augmented = folder / "augmented"
        Output(self.augmented, more=pa.table({"llm": as_text(40)})).finish()
        self.dev = save_file(folder / "dev.csv", as_text(16))
        self.test = save_file(folder / "test.csv", as_text(24))

    def arguments(self, output: Path, *more: str, column: str = "llm") -> list[str]:
        return [
            *("task", "--augmented", str(self.augmented), "--teacher-column", column, "--student", "2,16,32,4"),
            *("--text-column", "sentence", "--label-column", "label", "--test", str(self.test)),
            *("--epochs", "1", "--prediction-epochs", "2", "--prediction-lr", "1e-3", "--batch-size", "8"),
            *("--loader-workers", "0", "--threads", "1", "--dtype", "fp32", "--output", str(output), *more),
        ]


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return Setting(tmp_path_factory.mktemp("given"))


def result_of(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "result.json").read_text())
    return found


@pytest.mark.slow
def test_a_student_of_given_answers(setting: Setting, tmp_path: Path) -> None:
    arguments = setting.arguments(tmp_path / "out", "--dev", str(setting.dev))
    finished = call_main(*arguments, program="trainer")
    assert finished.returncode == 0, finished.stderr
    assert "answers_given column=llm form=probabilities" in finished.stderr
    result = result_of(tmp_path / "out")
    assert (result["teacher"], result["teacher_column"]) == (None, "llm")
    assert "teacher_parameters" not in result
    # The answers themselves are scored against the labels, as a teacher would be.
    answers = np.asarray(as_lists(24)).argmax(-1)
    labels = np.arange(24) % 2
    assert result["test"]["teacher"]["accuracy"] == pytest.approx(float((answers == labels).mean()))
    student = load_student(str(tmp_path / "out"))
    own = [NAMES.index(one.label) for one in student.predict([row.text_a for row in source_rows(24)])]
    assert result["test"]["agreement"] == pytest.approx(float((np.asarray(own) == answers).mean()))
    config = transformers.AutoConfig.from_pretrained(tmp_path / "out" / "model")
    assert [config.id2label[index] for index in (0, 1)] == list(NAMES)
    card = (tmp_path / "out" / "model" / "README.md").read_text()
    assert "answers in the data (column `llm`)" in card
    assert "Agreement with the given answers" in card
    again = call_main(*arguments, program="trainer")
    assert again.returncode == 0, again.stderr
    other = call_main(*arguments, "--teacher-form", "logits", program="trainer")
    assert (other.returncode, "holds a run with a different teacher-form" in other.stderr) == (1, True)


@pytest.mark.slow
def test_rows_to_choose_on_come_from_the_shards_and_the_test_file_may_lack_answers(
    setting: Setting, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.csv"
    bare.write_text("".join(line.partition(',"[')[0] + "\n" for line in setting.test.read_text().splitlines()))
    bare.write_text(bare.read_text().replace("sentence,label,llm", "sentence,label"))
    told = ("--teacher-classes", "1", "0", "--test", str(bare))
    finished = call_main(*setting.arguments(tmp_path / "out", *told), program="trainer")
    assert finished.returncode == 0, finished.stderr
    assert "no_answers_to_score" in finished.stderr
    result = result_of(tmp_path / "out")
    assert result["teacher_dev"]
    assert result["test"]["teacher"] is None
    assert result["test"]["agreement"] is None
    config = transformers.AutoConfig.from_pretrained(tmp_path / "out" / "model")
    assert config.id2label[0] == "1"


@pytest.mark.parametrize(
    ("column", "more", "code", "message"),
    [
        ("gpt", (), 1, "has no column gpt: --teacher-column must name a column of the augmentation job's --input"),
        ("llm", ("--teacher", "t"), 2, "use one of the two"),
        ("llm", ("--teacher-form", "labels"), 1, "not one of the classes 0, 1"),
        ("llm", ("--teacher-classes", "0", "1", "2"), 1, "has 2 numbers for 3 classes (0, 1, 2)"),
    ],
)
def test_what_cannot_be_learned_is_one_line(
    setting: Setting, tmp_path: Path, column: str, more: tuple[str, ...], code: int, message: str
) -> None:
    arguments = setting.arguments(tmp_path / "out", "--dev", str(setting.dev), *more, column=column)
    finished = call_main(*arguments, program="trainer")
    assert finished.returncode == code, finished.stderr
    assert message in finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.stderr
