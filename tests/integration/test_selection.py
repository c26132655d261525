"""What chooses the best checkpoint and what scores the finished model, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.command import call_main
from tests.support.distillation import Output, save_dev, save_teacher, source_rows
from trainer import evaluation, task
from trainer.config import TaskConfig
from trainer.data.augmented import open_augmented
from trainer.data.stream import ShardStream
from trainer.data.tasks import glue_spec
from trainer.data.validation import cut, source_table
from trainer.models import load_tokenizer
from trainer.result import RunResult, read_result
from trainer.state import Worker

COMMON = ("--threads", "1", "--loader-workers", "0", "--batch-size", "8", "--epochs", "1", "--evaluations", "1")


def result_of(output: Path, *arguments: str) -> tuple[RunResult, str]:
    finished = call_main(*arguments, "--output", str(output), program="trainer")
    assert finished.returncode == 0, finished.stderr
    result = read_result(output)
    assert result is not None
    return result, finished.stdout


@pytest.mark.parametrize("emit", ["samples", "candidates"])
def test_without_dev_teacher_and_student_choose_on_the_same_rows_and_train_on_none_of_them(
    tmp_path: Path, emit: str
) -> None:
    train, test = save_dev(tmp_path / "train.tsv", 60), save_dev(tmp_path / "test.tsv", 16)
    augmented = tmp_path / "augmented"
    Output(augmented, num_rows=60, emit=emit).finish()
    encoder = save_teacher(tmp_path / "encoder")
    share = ("--validation-share", "0.3", "--test", str(test))
    first, text = result_of(
        tmp_path / "teacher",
        *("teacher", "--task", "SST-2", "--train", str(train), "--encoder", str(encoder), *COMMON, *share),
    )
    second, _ = result_of(
        tmp_path / "student",
        *("task", "--task", "SST-2", "--augmented", str(augmented), "--teacher", str(tmp_path / "teacher")),
        *("--student", "2,16,32,4", "--prediction-epochs", "1", *COMMON, *share),
    )
    # Texts repeat, and equal ones stay together.
    found = open_augmented(str(augmented), 1.0)
    kept, apart = cut(source_table(found, 1.0), glue_spec("SST-2"), 0.3)
    assert not {row.text_a for row in kept.rows} & {row.text_a for row in apart.rows}
    assert first.rows == second.rows == len(apart.rows) > 0
    assert first.samples == len(kept.rows)
    assert second.samples == 2 * 4 * len(kept.rows)
    assert second.teacher_dev == pytest.approx(first.dev)
    for result in (first, second):
        assert result.selected_on == "a validation set split from the training data"
        assert result.test is not None
        assert result.test.rows == 16
        assert result.test.baselines == {"majority": {"accuracy": 0.5}, "chance": {"accuracy": 0.5}}
        assert result.baselines is not None
    assert second.test is not None
    assert second.test.teacher == pytest.approx(first.test.scores if first.test else None)
    assert "(majority 0.5000, chance 0.5000)" in text
    assert "test: accuracy" in text
    card = (tmp_path / "student" / "model" / "README.md").read_text()
    assert "On a test file (16 rows), which was not used for selection" in card
    assert "| metric | this model | teacher | retained | majority | chance |" in card
    report = call_main(
        *("report", "--runs", str(tmp_path / "teacher"), str(tmp_path / "student"), "--no-timing"),
        *("--output", str(tmp_path / "report.html")),
        program="trainer",
    )
    assert report.returncode == 0, report.stderr
    page = (tmp_path / "report.html").read_text()
    assert "does not read the text" in page
    assert "test: accuracy" in page


def test_held_out_rows_are_left_out_with_their_samples(tmp_path: Path) -> None:
    Output(tmp_path / "augmented", num_rows=30).finish()
    augmented = open_augmented(str(tmp_path / "augmented"), 1.0)
    held_out = np.asarray([2, 3, 11, 29], np.int64)
    stream = ShardStream(
        augmented=augmented,
        spec=glue_spec("SST-2"),
        tokenizer=load_tokenizer(str(save_teacher(tmp_path / "teacher"))),
        max_length=32,
        batch_size=4,
        window_shards=2,
        seed=0,
        follow_timeout=1.0,
        pad_id=0,
        held_out=held_out,
    )
    for epoch in (0, 1):
        windows = [stream.prepare(epoch, number) for number in range(stream.num_windows(epoch))]
        ids = np.concatenate([window.keys[:, 0] for window in windows])
        assert sorted(set(ids.tolist())) == sorted(set(range(30)) - set(held_out.tolist()))
        assert len(ids) == 4 * 26


def test_a_dev_file_chooses_without_taking_rows_from_training(tmp_path: Path) -> None:
    train = save_dev(tmp_path / "train.tsv", 40)
    encoder = save_teacher(tmp_path / "encoder")
    result, _ = result_of(
        tmp_path / "teacher",
        *("teacher", "--task", "SST-2", "--train", str(train), "--dev", str(train), "--encoder", str(encoder), *COMMON),
    )
    assert result.selected_on == "the dev file"
    assert (result.samples, result.rows, result.test) == (40, 40, None)


def test_teacher_and_student_are_scored_in_the_same_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Output(tmp_path / "augmented", num_rows=20).finish()
    predicting, used = evaluation.predict, list[tuple[int, torch.dtype]]()

    def predict(model: Any, *arguments: Any) -> Any:
        used.append((model.config.hidden_size, model.bert.encoder.layer[0].output.dense.weight.dtype))
        return predicting(model, *arguments)

    monkeypatch.setattr(evaluation, "predict", predict)
    teacher, dev = save_teacher(tmp_path / "teacher"), save_dev(tmp_path / "dev.tsv")
    options = {
        **{"task": "SST-2", "augmented": str(tmp_path / "augmented"), "teacher": str(teacher), "dev": str(dev)},
        **{"student": "2,16,32,4", "output": str(tmp_path / "run"), "test": str(dev), "threads": 1},
        **{"loader_workers": 0, "batch_size": 8, "epochs": 1, "prediction_epochs": 1, "evaluations": 1},
    }
    (tmp_path / "run").mkdir()
    task._work(TaskConfig.build(options), Worker(device="cpu", dtype=torch.bfloat16, rank=0, world=1))
    result = read_result(tmp_path / "run")
    assert result is not None
    assert result.test is not None
    assert result.test.teacher
    assert len({width for width, _ in used}) == 2, "both were scored"
    assert {dtype for _, dtype in used} == {torch.float32}


def test_a_task_of_two_metrics_is_chosen_by_their_mean(tmp_path: Path) -> None:
    data = tmp_path / "own.csv"
    data.write_text("review,stars\n" + "".join(f"{row.text_a},{row.label}\n" for row in source_rows(40)))
    arguments = (
        *("teacher", "--text-column", "review", "--label-column", "stars", "--train", str(data), "--dev", str(data)),
        *("--encoder", str(save_teacher(tmp_path / "encoder")), *COMMON),
    )
    mean, _ = result_of(tmp_path / "mean", *arguments)
    assert mean.selected_by == "the mean of accuracy and f1_macro"
    assert mean.score == pytest.approx((mean.dev["accuracy"] + mean.dev["f1_macro"]) / 2)
    first, _ = result_of(tmp_path / "first", *arguments, "--select-by", "first")
    assert (first.selected_by, first.score) == ("accuracy", first.dev["accuracy"])


def test_changed_or_too_few_rows_are_one_clear_line(tmp_path: Path) -> None:
    train = tmp_path / "train.tsv"
    train.write_text("sentence\tlabel\ngood\t1\nbad\t0\n")
    encoder = save_teacher(tmp_path / "encoder")
    arguments = ["teacher", "--task", "SST-2", "--train", str(train), "--encoder", str(encoder), *COMMON]
    finished = call_main(*arguments, "--output", str(tmp_path / "few"), program="trainer")
    assert finished.returncode == 1
    assert "are too few to split off a validation set" in finished.stderr.splitlines()[-1]
    dev = save_dev(tmp_path / "dev.tsv", 16)
    arguments += ["--dev", str(dev), "--output", str(tmp_path / "changed")]
    assert call_main(*arguments, program="trainer").returncode == 0
    (tmp_path / "changed" / "result.json").unlink()
    save_dev(dev, 8)
    finished = call_main(*arguments, program="trainer")
    assert "was started with a different dev file" in finished.stderr.splitlines()[-1]


def test_evaluate_shows_what_a_score_is_worth(tmp_path: Path) -> None:
    dev = save_dev(tmp_path / "dev.tsv", 16)
    model = save_teacher(tmp_path / "model")
    finished = call_main(*("evaluate", "--task", "SST-2", "--model", str(model), "--data", str(dev)), program="trainer")
    assert json.loads(finished.stdout)["baselines"]["majority"] == {"accuracy": 0.5}
