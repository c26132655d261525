"""What cannot work is one clear line, before minutes are spent and before anything is written."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.support.command import call_main
from tests.support.distillation import save_teacher
from tests.support.pipeline import Workshop, labelled

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("bad"))


def renamed(rows: Rows, **names: str) -> Rows:
    return [{names.get(name, name): value for name, value in row.items()} for row in rows]


def with_two_rows_of_another_class() -> Rows:
    rows = labelled(160)
    return [*rows[:-2], *({**row, "label": "rare"} for row in rows[-2:])]


def long_texts() -> Rows:
    return [{**row, "text": " ".join([row["text"]] * 1400)} for row in labelled(120)]


def foreign() -> Rows:
    draw = random.Random(1)
    letters = "абвгдежзийклмнопрстуфхцчшщ"
    words = ["".join(draw.choices(letters, k=9)) for _ in range(300)]
    return [{"text": " ".join(draw.choices(words, k=12)), "label": index % 2} for index in range(160)]


def answered() -> Rows:
    return [{**row, "llm": "[0.9, 0.1]" if row["label"] == "bad" else "[0.2, 0.8]"} for row in labelled()]


@pytest.mark.parametrize(
    ("rows", "more", "code", "message"),
    [
        (lambda: renamed(labelled(), label="verdict", text="words"), (), 2, "which column is the label? Name it with"),
        (lambda: [{**row, "stars": 1} for row in labelled()], (), 2, "which column is the label?"),
        (lambda: [{**row, "body": "x"} for row in labelled()], (), 2, "which column is the text?"),
        (labelled, ("--label-column", "grade"), 1, "--label-column grade"),
        (lambda: [{**row, "label": "good"} for row in labelled()], (), 1, "all labels are 'good'"),
        (with_two_rows_of_another_class, (), 1, "class 'rare' has only 2 rows"),
        (lambda: labelled(20), (), 1, "20 rows are too few for training"),
        (lambda: [{**row, "label": f"id-{i % 500}"} for i, row in enumerate(labelled(1000))], (), 1, "500 classes for"),
        (lambda: [{**row, "label": i / 7} for i, row in enumerate(labelled())], (), 2, "add --regression to predict"),
        (labelled, ("--regression",), 1, "is not a number; leave out --regression"),
        (long_texts, (), 1, "of the texts are longer than the"),
        (lambda: [{**row, "text": ""} for row in labelled()], (), 1, "none of 160 rows can be used"),
        # Refused after the calibration, which runs the models.
        pytest.param(labelled, ("--budget", "1s"), 2, "--budget 1s is too small", marks=pytest.mark.slow),
        (labelled, ("--budget", "soon"), 2, "write 20m or 2h"),
        (labelled, ("--max-length", "500"), 2, "reads at most 64 tokens"),
        (labelled, ("--teacher", "/nowhere"), 1, "--teacher /nowhere"),
        (labelled, ("--mlm", "/nowhere"), 1, "--mlm /nowhere: no such folder"),
        (labelled, ("--glove", "/nowhere"), 1, "--glove /nowhere: no such file"),
        (labelled, ("--student", "tinybert5"), 2, "--student tinybert5: not a size"),
        (answered, ("--teacher-column", "gpt"), 1, ".csv has only the columns text, label, llm"),
        (answered, ("--teacher-column", "llm", "--teacher", "t"), 2, "use one of the two"),
        (answered, ("--teacher-column", "llm", "--teacher-form", "number"), 2, "needs --regression"),
        (answered, ("--teacher-column", "llm", "--teacher-classes", "good", "ok"), 1, "label 'bad' is not one of"),
        (
            lambda: [*answered()[:-1], {**answered()[-1], "llm": "good"}],
            ("--teacher-column", "llm"),
            1,
            "data.csv row 159: a single value, but other rows have a list of numbers",
        ),
        (
            lambda: [*answered()[:-1], {**answered()[-1], "llm": "[1, 0, 0]"}],
            ("--teacher-column", "llm"),
            1,
            "data.csv row 159: column llm has 3 numbers for 2 classes (bad, good)",
        ),
        (labelled, ("--output", "hdfs://host/x"), 2, "hdfs://host/x: an output must be a local path, s3://"),
        (labelled, ("--test", "/nowhere.csv"), 1, "/nowhere.csv"),
    ],
)
def test_bad_input_is_one_clear_line(
    workshop: Workshop, tmp_path: Path, rows: Callable[[], Rows], more: tuple[str, ...], code: int, message: str
) -> None:
    data = workshop.save("data.csv", rows())
    if "--budget" in more:
        more = (*more, "--estimate")
    finished = call_main(*workshop.arguments(data, tmp_path / "out", *more), program="trainer")
    assert finished.returncode == code, finished.stderr
    assert message in finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "out" / "config.json").exists(), "the next try would be refused as another run"


def test_a_teacher_that_does_not_know_the_labels(workshop: Workshop, tmp_path: Path) -> None:
    teacher = save_teacher(workshop.folder / "teacher")
    data = workshop.save("data.csv", labelled())
    finished = call_main(*workshop.arguments(data, tmp_path / "out", "--teacher", str(teacher)), program="trainer")
    assert finished.returncode == 1
    assert "does not know the label 'bad'" in finished.stderr.splitlines()[-1]
    numbers = workshop.save("data.csv", [{**row, "label": index % 5} for index, row in enumerate(labelled())])
    finished = call_main(*workshop.arguments(numbers, tmp_path / "out", "--teacher", str(teacher)), program="trainer")
    assert "does not know the label '2'" in finished.stderr.splitlines()[-1]


def test_a_text_of_another_language(workshop: Workshop, tmp_path: Path) -> None:
    arguments = workshop.arguments(workshop.save("data.csv", foreign()), tmp_path / "out")
    arguments.remove("--any-language")
    finished = call_main(*arguments, program="trainer")
    assert finished.returncode == 1
    assert "hardly knows the words of" in finished.stderr.splitlines()[-1]


def test_an_output_of_another_run(workshop: Workshop, tmp_path: Path) -> None:
    data = workshop.save("data.csv", labelled())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.doc").write_text("precious")
    finished = call_main(*workshop.arguments(data, tmp_path / "out"), program="trainer")
    assert (finished.returncode, "is not empty and holds no run" in finished.stderr) == (2, True)
    (tmp_path / "out" / "config.json").write_text('{"command": "task"}')
    finished = call_main(*workshop.arguments(data, tmp_path / "out"), program="trainer")
    assert (finished.returncode, 'holds a run with a different command ("task"' in finished.stderr) == (1, True)


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(workshop: Workshop, tmp_path: Path) -> None:
    data = workshop.save("data.csv", labelled())
    finished = call_main(*workshop.arguments(data, tmp_path / "out", "--dry-run"), program="trainer")
    assert finished.returncode == 0, finished.stderr
    assert "python -m trainer task --augmented" in finished.stderr
    assert not (tmp_path / "out").exists()


def apart(name: str, *labels: object) -> Rows:
    return [{"text": f"{name} sentence {index}", "label": labels[index % len(labels)]} for index in range(30)]


@pytest.mark.parametrize("option", ["--dev", "--test"])
@pytest.mark.parametrize("dry", [True, False])
def test_labels_that_the_data_lacks_are_refused_before_anything_is_written(
    workshop: Workshop, tmp_path: Path, option: str, dry: bool
) -> None:
    data = workshop.save("data.csv", labelled())
    other = workshop.save("other.csv", apart("other", "good", "bad", "ugly"))
    more = (option, str(other), *(("--dry-run",) if dry else ()))
    finished = call_main(*workshop.arguments(data, tmp_path / "out", *more), program="trainer")
    assert finished.returncode == 1, finished.stderr
    line = finished.stderr.splitlines()[-1]
    assert (
        f"{option} {other}: label 'ugly' (10 of 30 rows, the first is row 2) is not one of the classes bad, good"
        in line
    )
    assert not (tmp_path / "out" / "config.json").exists()


def test_a_dev_label_is_recognised_as_the_steps_do(workshop: Workshop, tmp_path: Path) -> None:
    data = workshop.save("data.csv", labelled())
    other = workshop.save("other.csv", apart("other", "Good", "BAD"))
    finished = call_main(
        *workshop.arguments(data, tmp_path / "out", "--dev", str(other), "--dry-run"), program="trainer"
    )
    assert finished.returncode == 0, finished.stderr


def test_a_dev_label_that_the_teacher_knows_need_not_be_in_the_data(workshop: Workshop, tmp_path: Path) -> None:
    teacher = save_teacher(workshop.folder / "three", labels=3)
    data = workshop.save("data.csv", labelled(classes=(0, 1)))
    other = workshop.save("other.csv", apart("other", 0, 1, 2))
    more = ("--dev", str(other), "--teacher", str(teacher), "--dry-run")
    finished = call_main(*workshop.arguments(data, tmp_path / "out", *more), program="trainer")
    assert finished.returncode == 0, finished.stderr


def test_a_number_is_needed_in_every_row_of_a_dev_file_for_regression(workshop: Workshop, tmp_path: Path) -> None:
    data = workshop.save("data.csv", [{**row, "label": index / 7} for index, row in enumerate(labelled())])
    other = workshop.save("other.csv", apart("other", "1.5", "2", "3 stars"))
    more = ("--regression", "--test", str(other), "--dry-run")
    finished = call_main(*workshop.arguments(data, tmp_path / "out", *more), program="trainer")
    assert finished.returncode == 1, finished.stderr
    assert f"--test {other}: label '3 stars' (10 of 30 rows, the first is row 2) is not a number" in finished.stderr


def test_rare_classes_that_are_left_out_are_left_out_of_the_dev_file_too(workshop: Workshop, tmp_path: Path) -> None:
    data = workshop.save("data.csv", with_two_rows_of_another_class())
    other = workshop.save("other.csv", apart("other", "good", "bad", "rare"))
    more = ("--dev", str(other), "--drop-rare", "--dry-run")
    finished = call_main(*workshop.arguments(data, tmp_path / "out", *more), program="trainer")
    assert finished.returncode == 0, finished.stderr
    assert f"decided: 10 rows of rare classes are dropped from --dev {other}" in finished.stderr
    assert ", 20 validation and" in finished.stderr


@pytest.mark.parametrize("option", ["--teacher", "--encoder", "--student"])
@pytest.mark.parametrize("damage", ["nan", "missing"])
def test_damaged_weights_of_any_model_are_found_before_the_first_step(
    workshop: Workshop, tmp_path: Path, option: str, damage: str
) -> None:
    model = save_teacher(tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    name = "bert.encoder.layer.1.output.dense.weight"
    if damage == "nan":
        weights[name][0, 0] = float("nan")
    else:
        del weights[name]
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    data = workshop.save("data.csv", labelled(classes=(0, 1)))
    more = (option, str(model), "--dry-run")
    finished = call_main(*workshop.arguments(data, tmp_path / "out", *more), program="trainer")
    assert finished.returncode == 1, finished.stderr
    line = finished.stderr.splitlines()[-1]
    assert f"{option} {model}" in line
    assert name in line
