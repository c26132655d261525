"""An exported file compared with PyTorch: equal logits for fp32, agreement of predictions for int8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.errors import OutputError
from shared.model_folder import MULTI_LABEL
from trainer.export.onnx_file import open_session, session_logits
from trainer.export.sample_inputs import EncodedRow, pad_rows, random_rows
from trainer.export.saved_classifier import Floats, SavedClassifier

TOLERANCE = 1e-4
"""Largest allowed difference of a logit, relative to the largest logit if that is above 1."""
COMPARED_ROWS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitCheck:
    """Largest difference of a logit over inputs of these (rows, tokens), and what was allowed."""

    shapes: Sequence[tuple[int, int]]
    max_logit_difference: float
    allowed: float
    largest_logit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How close a quantised file comes to PyTorch.

    same_class: share of rows with the same class, or the same labels where a row has several; None for regression.
    `inputs`: the origin of the rows.
    """

    rows: int
    max_logit_difference: float
    mean_logit_difference: float
    same_class: float | None
    inputs: str


def check_equal_logits(classifier: SavedClassifier, path: Path, longest: int, seed: int) -> LogitCheck:
    """Run the file and PyTorch on random inputs of several shapes, some with padding. Raises OutputError."""
    session = open_session(path)
    shapes = [(1, 2), (1, longest), (3, max(longest // 2, 2)), (COMPARED_ROWS, min(longest, 32))]
    differences, scale = [0.0], 1.0
    for number, (count, length) in enumerate(shapes):
        shortest = max(length // 2, 2) if count > 1 else length
        rows = random_rows(classifier.tokenizer, count, shortest, length, seed + number)
        arrays = pad_rows(rows, classifier.tokenizer)
        expected = classifier.logits(arrays)
        found = session_logits(session, arrays)
        if found.shape != expected.shape:
            raise OutputError(
                f"the ONNX file returns logits of shape {found.shape}, but PyTorch {expected.shape}; it was discarded"
            )
        differences.append(float(np.abs(found - expected).max()))
        scale = max(scale, float(np.abs(expected).max()))
    worst = float(np.max(differences))  # NaN if one is: Python's max() would pass over it
    if not worst <= TOLERANCE * scale:
        raise OutputError(
            f"the ONNX logits differ from PyTorch's by {worst:.2g} (allowed: {TOLERANCE * scale:.2g}); the file was "
            "discarded. Try another --opset"
        )
    return LogitCheck(shapes=shapes, max_logit_difference=worst, allowed=TOLERANCE * scale, largest_logit=scale)


def compare_predictions(classifier: SavedClassifier, path: Path, rows: Sequence[EncodedRow], inputs: str) -> Agreement:
    """How often the file predicts the same class as PyTorch; for regression, how far the numbers are apart."""
    session = open_session(path)
    expected: list[Floats] = []
    found: list[Floats] = []
    for start in range(0, len(rows), COMPARED_ROWS):
        arrays = pad_rows(rows[start : start + COMPARED_ROWS], classifier.tokenizer)
        expected.append(classifier.logits(arrays))
        found.append(session_logits(session, arrays))
    exact, quantised = np.concatenate(expected), np.concatenate(found)
    difference = np.abs(exact - quantised)
    same = None
    if classifier.model.config.problem_type == MULTI_LABEL:
        same = float(((exact > 0) == (quantised > 0)).all(1).mean())
    elif exact.shape[1] > 1:
        same = float((exact.argmax(1) == quantised.argmax(1)).mean())
    return Agreement(
        rows=len(rows),
        max_logit_difference=float(difference.max()),
        mean_logit_difference=float(difference.mean()),
        same_class=same,
        inputs=inputs,
    )
