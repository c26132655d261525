"""GLUE scores, compared with values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from shared.errors import InputError
from shared.glue import TASKS
from trainer.data.tasks import TaskSpec, glue_spec, own_spec
from trainer.metrics import score, selection_score

CLASSES = np.asarray([[2, 1], [0, 3], [1, 0], [0, 1], [0, 5]], np.float32)  # predicted 0, 1, 0, 1, 1
LABELS = np.asarray([0, 1, 1, 1, 0], np.float32)


def test_classification_scores() -> None:
    assert score(glue_spec("SST-2"), CLASSES, LABELS) == pytest.approx({"accuracy": 0.6})
    # True positives 2, false positives 1, false negatives 1.
    mrpc = score(glue_spec("MRPC"), CLASSES, LABELS)
    assert mrpc == pytest.approx({"f1": 2 / 3, "accuracy": 0.6})
    assert selection_score(glue_spec("MRPC"), mrpc) == pytest.approx(2 / 3)
    matthews = (2 * 1 - 1 * 1) / math.sqrt(3 * 3 * 2 * 2)
    assert score(glue_spec("CoLA"), CLASSES, LABELS) == pytest.approx({"matthews": matthews})


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
        (["x", "x"], False, "needs two classes"),
        (["x"], True, "is not a number"),
        (list(range(2000)), False, "use --regression"),
    ):
        with pytest.raises(InputError, match=message):
            own_spec(labels, regression, "f")
    with pytest.raises(InputError, match="none of the classes"):
        TaskSpec(name="t", labels=("a", "b"), metrics=("accuracy",)).encode_label("c", "f row 1")
    with pytest.raises(InputError, match="without a label"):
        score(glue_spec("SST-2"), CLASSES, np.asarray([0, 1, math.nan, 1, 0], np.float32))
