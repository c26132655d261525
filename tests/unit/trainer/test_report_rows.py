"""Student and teacher are compared on the test rows where there are any, since the dev rows chose the checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import write_task_run, write_teacher_run
from trainer.report.figures import PageFacts
from trainer.report.page import render_page
from trainer.report.runs import read_run
from trainer.report.summary import summarise

FACTS = PageFacts(
    title="report",
    created="2026-01-01 00:00 UTC",
    machine={"processor": "one", "cores": 2, "torch": "2", "transformers": "5", "python": "3"},
)


def final_scores(score: float, teacher: float | None) -> dict[str, Any]:
    scores = None if teacher is None else {"accuracy": teacher}
    return {"rows": 500, "scores": {"accuracy": score}, "baselines": {}, "teacher": scores}


def test_the_test_rows_are_compared_if_all_students_were_scored_on_them(tmp_path: Path) -> None:
    teacher = write_teacher_run(tmp_path / "teacher")
    tested = [
        read_run(
            str(write_task_run(tmp_path / f"{seed}", teacher, seed=seed, test=final_scores(0.8 + seed / 50, 0.84)))
        )
        for seed in (0, 1)
    ]
    task = summarise(tested, [], FACTS, 9).tasks["SST-2"]
    assert task.scored_on == "test"
    assert task.variants[0].score.mean == pytest.approx(0.81)
    assert task.variants[0].retention is not None
    assert task.variants[0].retention.mean == pytest.approx(0.81 / 0.84)
    assert set(task.teachers.values()) == {0.84}
    page = render_page(tested, summarise(tested, [], FACTS, 9), "figures.json")
    assert "test rows, full, 2 seeds" in page

    others = [
        write_task_run(tmp_path / "dev", teacher),
        write_task_run(tmp_path / "own", teacher, test=final_scores(0.8, None)),
    ]
    for other in others:
        mixed = summarise([*tested, read_run(str(other))], [], FACTS, 9)
        assert mixed.tasks["SST-2"].scored_on == "dev"
        assert mixed.tasks["SST-2"].variants[0].score.mean == pytest.approx(0.86)
        assert [one.retention_on for one in mixed.runs] == ["test", "test", "dev"]


def test_a_test_score_that_is_not_a_number_is_left_out(tmp_path: Path) -> None:
    teacher = write_teacher_run(tmp_path / "teacher")
    run = read_run(str(write_task_run(tmp_path / "run", teacher, test=final_scores(float("nan"), 0.84))))
    assert summarise([run], [], FACTS, 9).tasks["SST-2"].variants == []
