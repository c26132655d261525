"""Samples and epochs by the size of the data, or to fit a budget."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import UsageError
from trainer.pipeline.choices import Rates, TaskSize, choice_lines, default_choices, estimate, fitting_choices
from trainer.pipeline.config import DistillConfig, minutes_of

SLOW = Rates(teacher_step=40.0, teacher_forward=150.0, student_step=600.0, augment=10.0, augment_fixed=20.0, start=8.0)
SMALL = TaskSize(num_train=8000, num_dev=1000, num_test=1000, has_pairs=False, max_length=48, student="embedded")


def config(**options: Any) -> DistillConfig:
    return DistillConfig.build({"data": "reviews.csv", "output": "out", **options})


@given(st.integers(100, 200_000), st.booleans())
def test_defaults_are_sensible_for_any_size(rows: int, has_pairs: bool) -> None:
    choices = default_choices(config(), replace(SMALL, num_train=rows, has_pairs=has_pairs))
    assert 1 <= choices.n_a <= (4 if has_pairs else 20)
    assert 1 <= choices.epochs <= choices.prediction_epochs <= 10
    assert choices.rows(rows) == rows


@pytest.mark.parametrize(("rows", "passes"), [(800, 6), (3300, 6), (5200, 4), (8000, 3), (60_000, 3)])
def test_a_small_teacher_is_trained_longer(rows: int, passes: int) -> None:
    assert default_choices(config(), replace(SMALL, num_train=rows)).teacher_epochs == passes


@pytest.mark.parametrize(
    ("rows", "has_pairs", "passes"), [(2000, False, 7), (7600, False, 2), (3300, True, 9), (800, True, 10)]
)
def test_a_small_data_set_is_predicted_for_as_long_as_a_large_one(rows: int, has_pairs: bool, passes: int) -> None:
    task = replace(SMALL, num_train=rows, has_pairs=has_pairs)
    assert default_choices(config(), task).prediction_epochs == passes
    # A teacher that answers in every pass makes each of them dear.
    live = default_choices(config(), replace(task, student="3,84,336,12"))
    assert live.prediction_epochs == min(2 * live.epochs, 10)


@given(st.floats(1, 600), st.integers(200, 100_000), st.floats(0.1, 30))
def test_what_is_chosen_fits_the_budget_or_is_refused_with_what_would(minutes: float, rows: int, pace: float) -> None:
    task = replace(SMALL, num_train=rows)
    rates = Rates(
        teacher_step=40 * pace,
        teacher_forward=150 * pace,
        student_step=600 * pace,
        augment=10 * pace,
        augment_fixed=20.0,
        start=8.0,
    )
    asked = config(budget=f"{minutes:.3f}m")
    refusal = ""
    try:
        choices = fitting_choices(asked, rates, task)
    except UsageError as error:
        refusal = str(error)
        wanted = refusal.split("Use --budget ")[1].split("m ")[0]
        asked = config(budget=f"{wanted}m")
        choices = fitting_choices(asked, rates, task)
    assert not refusal or "is too small: the shortest possible run takes about" in refusal
    assert sum(estimate(asked, choices, rates, task).values()) <= minutes_of(str(asked.budget))


def test_more_time_is_used_for_more_samples() -> None:
    short, long = (fitting_choices(config(budget=text), SLOW, SMALL) for text in ("30m", "3h"))
    assert short.rows(8000) * short.n_a < long.rows(8000) * long.n_a


def test_rows_come_before_samples() -> None:
    fast = replace(SLOW, augment=60.0, student_step=2000.0, teacher_forward=500.0)
    for budget in ("10m", "15m", "30m"):
        choices = fitting_choices(config(budget=budget), fast, replace(SMALL, num_train=2400))
        assert choices.rows(2400) == 2400
        assert choices.n_a >= 2


def test_answers_are_stored_where_the_student_waits_for_all_samples_and_reads_them_more_than_once() -> None:
    asked = config(teacher="t")
    stored = default_choices(asked, SMALL)
    streamed = default_choices(asked, replace(SMALL, student="3,84,336,12"))
    assert stored.prediction_epochs > 1
    assert (stored.annotates, streamed.annotates) == (True, False)
    assert not default_choices(config(prediction_epochs=1), SMALL).annotates
    assert not default_choices(config(teacher_column="llm"), SMALL).annotates
    with_store, live = (estimate(asked, one, SLOW, SMALL) for one in (stored, streamed))
    assert "annotate" not in live
    assert sum(with_store.values()) < sum(live.values())


def test_a_teacher_that_only_answers_is_asked_once_per_sample() -> None:
    asked, task = config(teacher="t", prediction_epochs=1), replace(SMALL, answers_only=True)
    choices = default_choices(asked, task)
    assert choices.annotates
    samples = choices.rows(8000) * (1 + choices.n_a)
    found = estimate(asked, choices, replace(SLOW, annotate=50.0), task)
    assert found["annotate"] == pytest.approx((SLOW.start + samples / 50) / 60)


def test_answers_that_came_with_the_data_cost_no_teacher() -> None:
    given, tuned = config(teacher_column="llm"), config()
    choices = default_choices(given, SMALL)
    without, usual = (estimate(one, choices, SLOW, SMALL) for one in (given, tuned))
    assert "teacher" not in without
    assert without["student"] < usual["student"]
    assert "the answers in column 'llm'" in choice_lines(given, choices, 8000)[0]
    assert choice_lines(tuned, choices, 8000)[0] == "teacher: 3 epochs on 8,000 rows"


def test_what_the_user_says_is_not_chosen() -> None:
    told = config(n_a=3, epochs=2.5, teacher_epochs=1, prediction_epochs=4, augment_rows=500, budget="10h")
    choices = fitting_choices(told, SLOW, SMALL)
    assert (choices.n_a, choices.epochs, choices.teacher_epochs, choices.prediction_epochs) == (3, 2.5, 1, 4)
    assert choices.rows(8000) == 500


@pytest.mark.parametrize(("text", "minutes"), [("20m", 20), ("2h", 120), ("90s", 1.5), ("15", 15), ("1.5 h", 90)])
def test_times_are_read(text: str, minutes: float) -> None:
    assert minutes_of(text) == minutes


@pytest.mark.parametrize("text", ["soon", "0m", "-3m", "20 days", ""])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="write 20m or 2h"):
        config(budget=text)


def test_balance_gives_rare_labels_as_many_samples_as_the_frequent_one_up_to_a_limit() -> None:
    task = replace(SMALL, label_rows={"common": 6000, "rare": 1900, "very rare": 100})
    choices = default_choices(config(n_a_per_label=["balance"], n_a=5), task)
    numbers = dict(one.rpartition("=")[::2] for one in choices.n_a_per_label)
    assert numbers == {"common": "5", "rare": "18", "very rare": "100"}
    samples = 6000 * 6 + 1900 * 19 + 100 * 101
    assert choices.samples(8000) == samples
    assert "common=5, rare=18, very rare=100" in "\n".join(choice_lines(config(), choices, 8000))
    more = replace(SLOW, start=0.0, augment_fixed=0.0)
    seconds = samples * (choices.epochs + choices.prediction_epochs) / more.student_step
    assert estimate(config(), choices, more, task)["student"] > seconds / 60


PAIRS = replace(SMALL, num_train=4000, has_pairs=True)


def test_balanced_answers_are_stored_first() -> None:
    other = replace(SMALL, student="3,84,336,12")
    assert not default_choices(config(), other).annotates
    assert default_choices(config(balance=True), other).annotates
    with pytest.raises(UsageError, match="--balance needs a teacher model"):
        config(balance=True, regression=True)


def test_pairs_are_not_mined_where_rows_are_left_out() -> None:
    with pytest.raises(UsageError, match="--augment-rows leaves some out: use one of the two"):
        config(mined_pairs=3, augment_rows=500)
    short = fitting_choices(config(mined_pairs=3, budget="8m"), SLOW, PAIRS)
    assert short.augment_rows is not None
    assert short.mined == 0


def test_few_pairs_are_joined_by_mined_ones() -> None:
    few, more, many = (default_choices(config(), replace(PAIRS, num_train=rows)) for rows in (4000, 30_000, 400_000))
    assert (few.mined, more.mined, many.mined) == (5, 0, 0)
    assert few.samples(4000) == 4000 * (1 + few.n_a + 5)
    assert "plus 5 mined pairs each" in "\n".join(choice_lines(config(), few, 4000))
    assert default_choices(config(mined_pairs=2), replace(PAIRS, num_train=30_000)).mined == 2
    for options, task in (
        ({}, SMALL),
        ({"mined_pairs": 0}, PAIRS),
        ({"augment_rows": 500}, PAIRS),
        ({"regression": True}, PAIRS),
        ({"teacher_column": "llm"}, PAIRS),
        ({}, replace(PAIRS, num_unlabelled=100)),
    ):
        assert default_choices(config(**options), task).mined == 0


def test_numbers_of_some_labels_leave_the_others_as_they_are() -> None:
    task = replace(SMALL, label_rows={"common": 6000, "rare": 2000}, num_unlabelled=8000)
    choices = default_choices(config(n_a_per_label=["rare=30"], n_a=5), task)
    assert (choices.n_a, choices.n_a_per_label) == (5, ("rare=30",))
    assert choices.samples(16_000) == 6000 * 6 + 2000 * 31 + 8000 * 6
