"""Answers that come with the data: what a column holds, and the logits that a student learns from it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InputError, UsageError
from trainer.config import TaskConfig
from trainer.data.given_answers import GivenAnswers, carried_name, form_of, form_of_sets
from trainer.data.tasks import given_spec
from trainer.metrics import agreement

NAMES = ("bad", "good", "so-so")


def where(place: int) -> str:
    return f"data.csv row {place}"


def answers(form: Any, labels: tuple[str, ...] | None = NAMES) -> GivenAnswers:
    return GivenAnswers(column="llm", form=form, labels=labels)


def softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    shares = np.exp(logits.astype(np.float64))
    found: np.ndarray[Any, Any] = shares / shares.sum(-1, keepdims=True)
    return found


@given(st.lists(st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3), min_size=1, max_size=5), st.booleans())
def test_the_softmax_of_the_logits_is_the_probabilities(rows: list[list[float]], as_text: bool) -> None:
    wanted = [[round(number / sum(row), 3) for number in row] for row in rows]
    cells: list[Any] = [json.dumps(row) for row in wanted] if as_text else list(wanted)
    assert form_of(cells, where, "llm") == "probabilities"
    found = softmax(answers("probabilities").logits(cells, where))
    np.testing.assert_allclose(found, np.asarray(wanted) / np.sum(wanted, -1, keepdims=True), atol=1e-4)


def test_logits_stay_what_they_are() -> None:
    cells = [[2.0, -1.0, 0.5], "[0.2, 0.5, 0.3]", *([[3, 0.0, -4.25]] * 10)]
    assert form_of(cells, where, "llm") == "logits"
    found = answers("logits").logits(cells, where)
    assert found.dtype == np.float32
    assert found[0].tolist() == [2.0, -1.0, 0.5]


def test_a_hard_label_is_a_probability_of_one() -> None:
    cells = ["good", "So So", "bad"]
    assert form_of(cells, where, "llm") == "labels"
    np.testing.assert_allclose(softmax(answers("labels").logits(cells, where)), np.eye(3)[[1, 2, 0]], atol=1e-5)
    np.testing.assert_allclose(
        softmax(answers("labels", ("0", "1")).logits([1, 0], where)), np.eye(2)[[1, 0]], atol=1e-5
    )


def test_a_number_is_learned_as_it_is() -> None:
    assert answers("number", None).logits(["2.5", 3, [4.0]], where).tolist() == [[2.5], [3.0], [4.0]]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            [[0.5, 0.5], [0.2, 0.8], [3.0, -1.0]],
            "row 2: the numbers are not probabilities (they sum to 2), but those of 2",
        ),
        ([[0.5, 0.1], [0.2, 0.3]], "row 0: the numbers are between 0 and 1 but sum to 0.6, so they are neither"),
        ([[0.5, 0.5], "good", [0.1, 0.9]], "row 1: a single value, but other rows have a list"),
        (["good", [0.5, 0.5], "bad"], "row 1: a list of numbers, but other rows have a single value"),
        ([[0.5, 0.5], None], "row 1: column llm has no answer; fill it in"),
        (["good", " "], "row 1: column llm has no answer"),
        (["[0.5, 0.5", "[1, 0]"], "row 0: column llm has '[0.5, 0.5', which is not a valid JSON list"),
        ([[0.5, "x"]], "row 0: column llm has 'x' in its list"),
        ([[0.5, float("nan")]], "row 0: column llm has 'nan' in its list"),
    ],
)
def test_a_column_that_is_unclear_is_refused_with_the_row(cells: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=r"data\.csv") as caught:
        form_of(cells, where, "llm")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("form", "cells", "message"),
    [
        ("probabilities", [[0.5, 0.3, 0.2], [0.5, 0.5]], "row 1: column llm has 2 numbers for 3 classes (bad, good"),
        ("probabilities", [[0.5, 0.3, 0.1]], "row 0: column llm has numbers that are not probabilities (they sum to"),
        ("logits", [[1, 2, 3], "good"], "row 1: column llm has 'good', not a list of numbers"),
        ("logits", [[1, 2, 3], None], "row 1: column llm has no answer"),
        (
            "labels",
            ["good", "great"],
            "row 1: column llm has 'great', which is not one of the classes bad, good, so-so",
        ),
        ("labels", ["good", 0.93], "probabilities must be a list with one number per class"),
        ("labels", ["good", None], "row 1: column llm has no answer"),
        ("number", ["1", "much"], "row 1: column llm has 'much', but the task is to predict a number"),
        ("number", ["1", [1, 2]], "row 1: column llm has '[1, 2]', but the task is to predict a number"),
    ],
)
def test_a_cell_that_does_not_fit_is_refused_with_its_row(form: str, cells: list[Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        answers(form, None if form == "number" else NAMES).logits(cells, where)
    assert message in str(caught.value)


def test_a_column_with_a_name_of_the_shards_own_is_found_where_the_job_put_it() -> None:
    assert (carried_name("llm"), carried_name("label")) == ("llm", "label_input")


def config(**options: Any) -> TaskConfig:
    base = {"augmented": "a", "output": "o", "text_column": ("t",), "label_column": "l", "teacher_column": "llm"}
    return TaskConfig.build(base | options)


def test_the_order_of_the_classes_is_sorted_or_told() -> None:
    labels = ["good", "bad", "good"]
    assert given_spec(config(), labels, "dev.csv", is_number=False).labels == ("bad", "good")
    told = config(teacher_classes=("good", "bad", "so-so"))
    assert given_spec(told, labels, "dev.csv", is_number=False).labels == ("good", "bad", "so-so")
    assert given_spec(config(), [10, 9, 2], "dev.csv", is_number=False).labels == ("2", "9", "10")
    assert given_spec(config(), ["1", "2.5"], "dev.csv", is_number=True).labels is None
    with pytest.raises(InputError, match="label 'good' is not one of --teacher-classes bad so-so"):
        given_spec(config(teacher_classes=("bad", "so-so")), labels, "dev.csv", is_number=False)


def test_a_glue_task_has_its_own_classes() -> None:
    glue = {"text_column": (), "label_column": None}
    rte = config(**glue, task="RTE")
    assert given_spec(rte, [], "dev.tsv", is_number=False).labels == ("entailment", "not_entailment")
    swapped = config(**glue, task="RTE", teacher_classes=("not_entailment", "entailment"))
    assert given_spec(swapped, [], "dev.tsv", is_number=False).labels == ("not_entailment", "entailment")
    with pytest.raises(UsageError, match="the classes of RTE are"):
        given_spec(config(**glue, task="RTE", teacher_classes=("yes", "no")), [], "dev.tsv", is_number=False)
    with pytest.raises(UsageError, match="does not fit --task STS-B"):
        given_spec(config(**glue, task="STS-B", teacher_form="labels"), [], "dev.tsv", is_number=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher": "t"}, "use one of the two"),
        ({"teacher_column": None}, "pass --teacher, or name the column with its answers"),
        ({"teacher_column": None, "teacher": "t", "teacher_form": "logits"}, "need --teacher-column"),
        ({"teacher_column": "l"}, "also a text or label column"),
        ({"stages": ("intermediate",)}, "needs the prediction stage"),
        ({"annotated": True}, "reads the stored logits of --teacher"),
        ({"teacher_classes": ("a", "a")}, "names a class twice"),
        ({"multi_label": ("llm", "l"), "label_column": None}, "is also one of --multi-label"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config(**options)


def several(form: Any, separator: str = ",") -> GivenAnswers:
    return GivenAnswers(column="llm", form=form, labels=NAMES, multi_label=True, separator=separator)


def sigmoid(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return found


@given(st.lists(st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3), min_size=1, max_size=5), st.booleans())
def test_with_several_labels_each_probability_is_its_own(rows: list[list[float]], as_text: bool) -> None:
    cells: list[Any] = [json.dumps(row) for row in rows] if as_text else list(rows)
    assert form_of_sets(cells, where, "llm") == "probabilities"
    np.testing.assert_allclose(sigmoid(several("probabilities").logits(cells, where)), rows, atol=2e-6)


def test_with_several_labels_logits_stay_and_sets_become_probabilities_of_0_and_1() -> None:
    cells: list[Any] = [[2.0, -1.0, 0.5], "[0.2, 0.5, 0.3]", [3, 0.0, -4.25]]
    assert form_of_sets(cells, where, "llm") == "logits"
    assert several("logits").logits(cells, where)[2].tolist() == [3, 0, -4.25]
    sets: list[Any] = [["good"], [], "bad; So So", "['good', 'bad']", ""]
    assert form_of_sets(sets, where, "llm") == "labels"
    found = several("labels", ";").logits(sets, where)
    assert (found > 0).tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 1], [1, 1, 0], [0, 0, 0]]
    np.testing.assert_allclose(sigmoid(found), found > 0, atol=2e-6)


@pytest.mark.parametrize(
    ("form", "cells", "message"),
    [
        (None, [[0.5, 0.1, 1], "good", [0, 0, 1]], "row 1: column llm has no list of numbers, but other rows have"),
        (None, ["bad", [0.5, 0.5, 0.5], "good"], "row 1: column llm has a list of numbers, but other rows have"),
        (None, [[0.5, 0.1, 1], [0, 0, 1], [0, 2, 0]], "row 2: column llm has '.0, 2, 0.', but most other rows have"),
        ("probabilities", [[0.5, 0.1, 1], [0, 2, 0]], "row 1: column llm has .*, but probabilities must be between"),
        ("probabilities", [[0.5, 0.1]], "2 numbers for 3 classes"),
        ("labels", [["good"], ["great"]], "row 1: column llm has the label 'great', which is not one of bad, good"),
        ("labels", [["good"], None], "row 1: column llm has no answer"),
        ("labels", ["['good"], "row 0: column llm has the label"),
    ],
)
def test_answers_with_several_labels_that_do_not_fit_are_named(form: Any, cells: list[Any], message: str) -> None:
    def read() -> object:
        return form_of_sets(cells, where, "llm") if form is None else several(form).logits(cells, where)

    with pytest.raises(InputError, match=message):
        read()


def test_with_several_labels_agreement_counts_rows_and_labels() -> None:
    spec = given_spec(config(teacher_column="llm"), [["good"], ["bad", "so-so"], []], "x.csv", is_number=False)
    assert (spec.labels, spec.multi_label) == (NAMES, True)
    one = np.asarray([[1.0, -1, 2], [-1, -1, 2]], np.float32)
    assert agreement(spec, one, one * np.asarray([1, 1, -1], np.float32)) == pytest.approx(2 / 3)
