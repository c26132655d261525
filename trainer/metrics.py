"""Metrics of the GLUE tasks, computed by scikit-learn and SciPy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.errors import InputError
from trainer.data.tasks import TaskSpec

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
Baselines = Mapping[str, Mapping[str, float]]
"""Name of a model that reads no text -> metric -> value."""

CHANCE_MARGIN = 0.05
WEAK_CORRELATION = 0.1


def score(spec: TaskSpec, logits: Floats, labels: Floats) -> dict[str, float]:
    """Metric -> value of a task. Raises InputError.

    logits: (rows, C); labels: (rows,) class index or number, or (rows, C) of 0 and 1 for several labels per row. A row
    is predicted to have the labels whose logit is above 0, a probability of one half.
    """
    if not len(labels):
        raise InputError("no rows to score")
    if np.isnan(labels).any():
        raise InputError("rows without a label cannot be scored: name the label column with --label-column")
    if spec.multi_label:
        return {name: _MULTI_LABEL[name](logits > 0, labels > 0) for name in spec.metrics}
    predicted = logits[:, 0] if spec.labels is None else logits.argmax(-1)
    return {name: _METRICS[name](predicted.astype(np.float64), labels.astype(np.float64)) for name in spec.metrics}


@dataclass(frozen=True, slots=True)
class LabelScores:
    """How well a model finds one label. support: rows that have it."""

    precision: float
    recall: float
    f1: float
    support: int


def label_scores(spec: TaskSpec, logits: Floats, labels: Floats) -> dict[str, LabelScores]:
    """Label -> scores, for several labels per row. Arguments as in `score`."""
    predicted, wanted = logits > 0, labels > 0
    hits, given, real = (one.sum(0) for one in (predicted & wanted, predicted, wanted))
    return {
        name: LabelScores(float(hit / max(had, 1)), float(hit / max(has, 1)), _f1_of(hit, had, has), int(has))
        for name, hit, had, has in zip(spec.labels or (), hits, given, real, strict=True)
    }


def agreement(spec: TaskSpec, logits: Floats, answers: Floats) -> float:
    """Share of rows with the same class in both, each (rows, C); for regression the Pearson correlation.

    For multi-label tasks, the share of (row, label) pairs with the same prediction.
    """
    if spec.multi_label:
        return float(((logits > 0) == (answers > 0)).mean())
    if spec.labels is None:
        return _pearson(logits[:, 0].astype(np.float64), answers[:, 0].astype(np.float64))
    return float((logits.argmax(-1) == answers.argmax(-1)).mean())


def selection_score(spec: TaskSpec, metrics: Mapping[str, float], by: str = "mean") -> float:
    """The score that selects the checkpoint: the mean of the task's metrics (`mean`, `late`), or the first of them."""
    if by == "first" or len(spec.metrics) == 1:
        return metrics[spec.metrics[0]]
    return sum(metrics[name] for name in spec.metrics) / len(spec.metrics)


def selection_noise(score: float, num_rows: int, by: str) -> float:
    """How far below the best score a later checkpoint may be and still replace it.

    For `late` one standard error of a share of `num_rows` answers, which is close enough for F1 and correlations: with
    few rows, the best of many checkpoints is the luckiest one. 0 for other choices.
    """
    share = min(max(score, 0.0), 1.0)
    return math.sqrt(share * (1.0 - share) / num_rows) if by == "late" else 0.0


def selection_name(spec: TaskSpec, by: str) -> str:
    """Name of `selection_score`: `accuracy`, or `the mean of f1 and accuracy`."""
    if by == "late":
        return f"{selection_name(spec, 'mean')} (the last checkpoint within a standard error of the best)"
    if by == "first" or len(spec.metrics) == 1:
        return spec.metrics[0]
    return f"the mean of {' and '.join(spec.metrics)}"


def baselines(spec: TaskSpec, labels: Floats) -> Baselines:
    """Scores of models that read no text: `majority` always predicts the largest class, `chance` a random class.

    For several labels per row, `majority` predicts each label if most rows have it, `all` predicts every label, and
    `chance` tosses a coin. The metrics are those of the task; for `chance` they are expected values, F1 from expected
    counts. For regression, `majority` predicts a constant. labels: as in `score`.
    """
    if spec.labels is None:
        nothing = dict.fromkeys(spec.metrics, 0.0)
        return {"majority": nothing, "chance": dict(nothing)}
    if spec.multi_label:
        return _baselines_of_sets(spec, labels)
    num_classes = len(spec.labels)
    counts = np.bincount(labels.astype(np.int64), minlength=num_classes)
    answers = np.zeros((len(labels), num_classes), np.float32)
    answers[:, counts.argmax()] = 1.0
    shares, guess = counts / counts.sum(), 1 / num_classes
    f1 = 2 * shares * guess / (shares + guess)
    expected = {
        "accuracy": guess,
        "f1": float(f1[1]),
        # scikit-learn averages over the classes that occur.
        "f1_macro": float(f1.sum() / max(np.count_nonzero(counts), 1)),
        "matthews": 0.0,
    }
    return {"majority": score(spec, answers, labels), "chance": {name: expected[name] for name in spec.metrics}}


def scores_text(scores: Mapping[str, float], found: Baselines | None) -> str:
    """`accuracy 0.8900 (majority 0.5092, chance 0.5000), ...`, for the last line of a command."""
    parts = []
    for name, value in scores.items():
        known = [f"{one} {values[name]:.4f}" for one, values in (found or {}).items() if name in values]
        parts.append(f"{name} {value:.4f}" + (f" ({', '.join(known)})" if known else ""))
    return ", ".join(parts)


def weakness(spec: TaskSpec, logits: Floats, labels: Floats) -> str:
    """Why a model is hardly better than guessing, in one line; empty when it is better. Arguments as in `score`."""
    if spec.labels is None:
        value = _pearson(logits[:, 0].astype(np.float64), labels.astype(np.float64))
        return f"its Pearson correlation is {value:.3f}" if value < WEAK_CORRELATION else ""
    if spec.multi_label:
        value, chance = score(spec, logits, labels)["f1_micro"], baselines(spec, labels)["chance"]["f1_micro"]
        return f"its micro F1 {value:.3f} is below chance, {chance:.3f}" if value < chance else ""
    accuracy = float((logits.argmax(-1) == labels).mean())
    majority = float(np.bincount(labels.astype(np.int64)).max() / len(labels))
    chance = 1 / len(spec.labels)
    if accuracy < majority:
        return f"its accuracy {accuracy:.3f} is below that of always predicting the largest class, {majority:.3f}"
    if accuracy < chance + CHANCE_MARGIN:
        return f"its accuracy {accuracy:.3f} is close to chance, {chance:.3f}; check the order of its labels"
    return ""


def _baselines_of_sets(spec: TaskSpec, labels: Floats) -> Baselines:
    wanted = labels > 0
    shares = wanted.mean(0)  # (C,)
    answers = {"majority": np.tile(shares > 0.5, (len(labels), 1)), "all": np.ones_like(wanted)}
    found = {name: score(spec, np.where(one, 1.0, -1.0).astype(np.float32), labels) for name, one in answers.items()}
    # Expected counts: half of a label's rows are true positives, and half of all rows are predicted to have it.
    coin = {
        "f1_micro": float(shares.sum() / (shares.sum() + len(shares) / 2)),
        "f1_macro": float((shares / (shares + 0.5)).mean()),
        "exact_match": 0.5 ** len(shares),
    }
    return {**found, "chance": {name: coin[name] for name in spec.metrics}}


def _f1_of(hits: float, given: float, real: float) -> float:
    """F1 from counts; 0 for a label that is neither predicted nor real."""
    return float(2 * hits / (given + real)) if given + real else 0.0


def _micro(predicted: Flags, wanted: Flags) -> float:
    """F1 over all decisions."""
    return _f1_of((predicted & wanted).sum(), predicted.sum(), wanted.sum())


def _macro(predicted: Flags, wanted: Flags) -> float:
    """Mean of the labels' F1."""
    counts = zip((predicted & wanted).sum(0), predicted.sum(0), wanted.sum(0), strict=True)
    return float(np.mean([_f1_of(*one) for one in counts]))


def _exact_match(predicted: Flags, wanted: Flags) -> float:
    """Share of the rows whose labels are all right (subset accuracy)."""
    return float((predicted == wanted).all(-1).mean())


_MULTI_LABEL: dict[str, Callable[[Flags, Flags], float]] = {
    "f1_micro": _micro,
    "f1_macro": _macro,
    "exact_match": _exact_match,
}


def _accuracy(predicted: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    return float((predicted == labels).mean())


def _f1(predicted: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predicted, zero_division=0.0))


def _f1_macro(predicted: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predicted, average="macro", zero_division=0.0))


def _matthews(predicted: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predicted))


def _pearson(predicted: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    from scipy.stats import pearsonr

    return 0.0 if _is_constant(predicted, labels) else float(pearsonr(predicted, labels).statistic)


def _spearman(predicted: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    from scipy.stats import spearmanr

    return 0.0 if _is_constant(predicted, labels) else float(spearmanr(predicted, labels).statistic)


def _is_constant(*columns: NDArray[np.float64]) -> bool:
    """Correlation with a constant is undefined; it counts as 0, since such a model has learned nothing."""
    return any(len(column) < 2 or bool(np.all(column == column[0])) for column in columns)


_METRICS: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], float]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "f1_macro": _f1_macro,
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
}
