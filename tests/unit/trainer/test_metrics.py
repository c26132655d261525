"""GLUE scores, compared with values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from shared.errors import InputError
from shared.glue import TASKS
from trainer.data.tasks import TaskSpec, glue_spec, own_spec
from trainer.metrics import baselines, score, scores_text, selection_name, selection_noise, selection_score

CLASSES = np.asarray([[2, 1], [0, 3], [1, 0], [0, 1], [0, 5]], np.float32)  # predicted 0, 1, 0, 1, 1
LABELS = np.asarray([0, 1, 1, 1, 0], np.float32)


def test_classification_scores() -> None:
    assert score(glue_spec("SST-2"), CLASSES, LABELS) == pytest.approx({"accuracy": 0.6})
    # True positives 2, false positives 1, false negatives 1.
    mrpc = score(glue_spec("MRPC"), CLASSES, LABELS)
    assert mrpc == pytest.approx({"f1": 2 / 3, "accuracy": 0.6})
    assert selection_score(glue_spec("MRPC"), mrpc) == pytest.approx((2 / 3 + 0.6) / 2)
    assert selection_score(glue_spec("MRPC"), mrpc, "first") == pytest.approx(2 / 3)
    assert selection_name(glue_spec("MRPC"), "mean") == "the mean of f1 and accuracy"
    assert selection_name(glue_spec("MRPC"), "first") == "f1"
    assert selection_score(glue_spec("MRPC"), mrpc, "late") == selection_score(glue_spec("MRPC"), mrpc)
    assert selection_name(glue_spec("MRPC"), "late").startswith("the mean of f1 and accuracy (the last checkpoint")
    matthews = (2 * 1 - 1 * 1) / math.sqrt(3 * 3 * 2 * 2)
    assert score(glue_spec("CoLA"), CLASSES, LABELS) == pytest.approx({"matthews": matthews})


def test_noise_is_a_standard_error_and_shrinks_with_the_rows() -> None:
    assert selection_noise(0.8, 400, "late") == pytest.approx(0.02)
    assert selection_noise(0.8, 40_000, "late") == pytest.approx(0.002)
    assert selection_noise(-0.1, 400, "late") == selection_noise(1.0, 400, "late") == 0.0
    assert selection_noise(0.8, 400, "mean") == selection_noise(0.8, 400, "first") == 0.0


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.labels])
def test_baselines_are_what_models_that_read_nothing_score(name: str) -> None:
    spec, draw = glue_spec(name), np.random.default_rng(1)
    assert spec.labels is not None
    width = len(spec.labels)
    labels = draw.choice(width, 20_000, p=[0.2, 0.8, 0.0][:width]).astype(np.float32)
    found = baselines(spec, labels)
    constant = np.tile(np.eye(width, dtype=np.float32)[1], (len(labels), 1))
    assert found["majority"] == score(spec, constant, labels)
    random = score(spec, draw.normal(size=(len(labels), width)).astype(np.float32), labels)
    assert found["chance"] == pytest.approx(random, abs=0.02)


def test_baselines_of_own_data_and_of_numbers() -> None:
    spec, draw = own_spec(["a", "b", "c", "d"], False, "f"), np.random.default_rng(2)
    labels = draw.choice(4, 40_000, p=[0.1, 0.2, 0.7, 0.0]).astype(np.float32)
    random = score(spec, draw.normal(size=(len(labels), 4)).astype(np.float32), labels)
    assert baselines(spec, labels)["chance"]["accuracy"] == pytest.approx(random["accuracy"], abs=0.02)
    assert 0 <= random["f1_macro"] <= baselines(spec, labels)["chance"]["f1_macro"]
    zeros = {"pearson": 0.0, "spearman": 0.0}
    assert baselines(glue_spec("STS-B"), labels) == {"majority": zeros, "chance": zeros}


def test_a_score_is_shown_with_what_it_is_worth() -> None:
    found = baselines(glue_spec("MRPC"), np.asarray([1, 1, 1, 0], np.float32))
    text = scores_text({"f1": 0.8}, found)
    assert text == f"f1 0.8000 (majority {6 / 7:.4f}, chance 0.6000)"


def test_regression_scores() -> None:
    predicted = np.asarray([[1.0], [2.0], [4.0]], np.float32)
    scores = score(glue_spec("STS-B"), predicted, np.asarray([1.0, 2.0, 3.0], np.float32))
    assert scores == pytest.approx({"pearson": 3 / math.sqrt(2 * 14 / 3), "spearman": 1.0})
    constant = score(glue_spec("STS-B"), np.ones((3, 1), np.float32), np.asarray([1.0, 2.0, 3.0], np.float32))
    assert constant == {"pearson": 0.0, "spearman": 0.0}


def test_every_glue_task_has_a_spec() -> None:
    for name in TASKS:
        spec = glue_spec(name)
        width = spec.num_logits
        logits = np.random.default_rng(0).normal(size=(8, width)).astype(np.float32)
        labels = np.arange(8, dtype=np.float32) % max(width, 2)
        assert set(score(spec, logits, labels)) == set(spec.metrics)


def test_own_tasks() -> None:
    assert own_spec([3, 1, 10, 1], False, "f").labels == ("1", "3", "10")
    assert own_spec(["no", "yes"], False, "f").labels == ("no", "yes")
    assert own_spec([0.5, 1], True, "f").labels is None
    for labels, regression, message in (
        (["x", "x"], False, "needs at least two classes"),
        (["x"], True, "is not a number"),
        (list(range(2000)), False, "use --regression"),
    ):
        with pytest.raises(InputError, match=message):
            own_spec(labels, regression, "f")
    with pytest.raises(InputError, match="none of the classes"):
        TaskSpec(name="t", labels=("a", "b"), metrics=("accuracy",)).encode_label("c", "f row 1")
    with pytest.raises(InputError, match="without a label"):
        score(glue_spec("SST-2"), CLASSES, np.asarray([0, 1, math.nan, 1, 0], np.float32))
