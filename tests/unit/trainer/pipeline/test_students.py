"""Several students of one distillation: their folders and seeds, and which one is handed on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import OutputError, UsageError
from trainer.pipeline.choices import default_choices, estimate
from trainer.pipeline.config import DistillConfig
from trainer.pipeline.place import place_of
from trainer.pipeline.students import best_student, student_results, student_seeds
from trainer.result import FinalScores, RunResult, write_result

from .test_choices import SLOW, SMALL, config

TEST = FinalScores(rows=10, scores={"accuracy": 0.5}, baselines={})


def result(score: float | None, accuracy: float = 0.5) -> RunResult:
    return RunResult(command="task", score=score, test=replace(TEST, scores={"accuracy": accuracy}))


def test_the_first_student_has_the_folder_and_the_seed_of_a_single_one() -> None:
    assert student_seeds(config(seed=7)) == {"student": 7}
    assert student_seeds(config(seed=7, seeds=3)) == {"student": 7, "student-seed-8": 8, "student-seed-9": 9}


@given(st.lists(st.tuples(st.sampled_from([None, 0.1, 0.5, 0.9]), st.floats(0, 1)), min_size=1, max_size=5))
def test_validation_alone_decides_and_the_first_of_equals_wins(scores: list[tuple[float | None, float]]) -> None:
    results = {f"student-{place}": result(*both) for place, both in enumerate(scores)}
    known = [-1.0 if score is None else score for score, _ in scores]
    assert best_student(results) == f"student-{known.index(max(known))}"


def test_a_student_without_test_scores_is_named(tmp_path: Path) -> None:
    asked: DistillConfig = config(output=str(tmp_path), seeds=2)
    for name, one in (("student", result(0.5)), ("student-seed-1", replace(result(0.5), test=None))):
        (tmp_path / name).mkdir()
        write_result(tmp_path / name, one)
    with pytest.raises(OutputError, match="student-seed-1 has no result with test scores"):
        student_results(asked, place_of(str(tmp_path)))


def test_each_student_counts_in_the_estimate() -> None:
    choices = default_choices(config(), SMALL)
    one, three = (estimate(config(seeds=seeds), choices, SLOW, SMALL) for seeds in (1, 3))
    assert three["student"] == pytest.approx(3 * one["student"])
    assert {name: three[name] for name in three if name != "student"} == {
        name: one[name] for name in one if name != "student"
    }


def test_a_seed_without_successors_is_refused() -> None:
    with pytest.raises(UsageError, match="--seeds 2: --seed 9223372036854775807 is too large for that many"):
        config(seed=2**63 - 1, seeds=2)
