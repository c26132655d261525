"""A teacher's answers that come with the data, in a column: probabilities, logits, hard labels or numbers (pure).

A cell is a list of one number per class, as a list or as JSON text, or a single value: a class, or a number for
regression. For multi-label tasks it is a list of one number per label, each an independent probability, or the labels
that the teacher predicted. Anything ambiguous is rejected, because a student would learn it silently.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.errors import InputError
from shared.inputs.columns import RESERVED
from shared.inputs.label_sets import LabelSetError, labels_of_cell
from shared.inputs.labels import is_missing, is_number, label_text
from trainer.config import AnswerForm
from trainer.labels import find_label

Floats = NDArray[np.float32]
Where = Callable[[int], str]

LEAST_PROBABILITY = 1e-6
"""Replaces a probability of 0, to keep logits finite."""
ROUNDING = 0.02
"""Allowed deviation of the sum of probabilities from 1, as after rounding to two decimals."""
MIXED_SHARE = 0.1
"""Share of rows of logits that may look like probabilities by chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenAnswers:
    """A column of answers. labels: the classes in the order of the numbers, None for regression.

    form: the detected format of the cells: probabilities, logits, labels or number. multi_label: a row has any number
    of classes; separator: between them in a text that names several.
    """

    column: str
    form: AnswerForm
    labels: tuple[str, ...] | None
    multi_label: bool = False
    separator: str = ","

    def logits(self, cells: Sequence[Any], where: Where) -> Floats:
        """(rows, C) float32: logits whose softmax gives the probabilities; 1 for a hard label; the number itself.

        For multi-label tasks, their sigmoid gives the probabilities. where: row index -> name for messages. Raises
        InputError for the first invalid cell.
        """
        read = {"number": self._number, "labels": self._one_hot}.get(self.form, self._vector)
        values = np.asarray([read(cell, where, place) for place, cell in enumerate(cells)], np.float64)
        values = values.reshape(len(cells), len(self.labels or ("",)))
        if self.form in ("probabilities", "labels") and self.multi_label:
            values = np.clip(values, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
            values = np.log(values) - np.log1p(-values)
        elif self.form in ("probabilities", "labels"):
            values = np.log(np.maximum(values / values.sum(-1, keepdims=True), LEAST_PROBABILITY))
        return values.astype(np.float32)

    def identity(self) -> str:
        """Everything that determines the logits of a cell, as text."""
        several = ["several labels", self.separator] if self.multi_label else []
        return json.dumps(["given answers", self.column, self.form, self.labels, *several])

    def _vector(self, cell: Any, where: Where, place: int) -> list[float]:
        found, names = _numbers(cell, where, place, self.column), self.labels or ()
        if found is None:
            raise InputError(
                f"{where(place)}: column {self.column} has {_shown(cell)}, not a list of numbers as in other rows"
            )
        if len(found) != len(names):
            raise InputError(
                f"{where(place)}: column {self.column} has {len(found)} numbers for {len(names)} classes "
                f"({', '.join(names)[:120]}); name the classes in the order of the numbers with --teacher-classes"
            )
        if self.form == "probabilities" and self.multi_label:
            if not _are_shares(found):
                raise InputError(
                    f"{where(place)}: column {self.column} has {_shown(found)}, but probabilities must be between 0 "
                    "and 1; fix the row, or set the format with --teacher-form"
                )
        elif self.form == "probabilities" and not _are_probabilities(found):
            raise InputError(
                f"{where(place)}: column {self.column} has numbers that are not probabilities (they sum to "
                f"{sum(found):.4g}), but other rows have probabilities; fix the row, or set the format with "
                "--teacher-form"
            )
        return found

    def _one_hot(self, cell: Any, where: Where, place: int) -> list[float]:
        names = self.labels or ()
        if self.multi_label:
            return self._several_hot(cell, where, place)
        _check_is_there(cell, where, place, self.column)
        index = None if isinstance(cell, (list, dict)) else find_label(names, label_text(cell))
        if index is None:
            raise InputError(
                f"{where(place)}: column {self.column} has {_shown(cell)}, which is not one of the classes "
                f"{', '.join(names)[:120]}; probabilities must be a list with one number per class. If it is a class, "
                "list all classes with --teacher-classes"
            )
        return [float(number == index) for number in range(len(names))]

    def _several_hot(self, cell: Any, where: Where, place: int) -> list[float]:
        if cell is None:
            _check_is_there(cell, where, place, self.column)
        names = self.labels or ()
        try:
            found = labels_of_cell(cell, (), self.separator)
        except LabelSetError as error:
            raise InputError(f"{where(place)}: column {self.column} has {_shown(cell)}: {error}") from error
        numbers = [find_label(names, one) for one in found]
        if None in numbers:
            raise InputError(
                f"{where(place)}: column {self.column} has the label {found[numbers.index(None)][:40]!r}, which is not "
                f"one of {', '.join(names)[:120]}; list all labels with --teacher-classes"
            )
        return [float(number in numbers) for number in range(len(names))]

    def _number(self, cell: Any, where: Where, place: int) -> list[float]:
        found = _numbers(cell, where, place, self.column)
        if found is not None and len(found) == 1:
            return found
        text = label_text(cell)
        if not is_number(text):
            raise InputError(
                f"{where(place)}: column {self.column} has {_shown(cell)}, but the task is to predict a number"
            )
        return [float(text)]


def carried_name(column: str) -> str:
    """Name of an input column in the shards that the augmentation job copied it to."""
    return f"{column}_input" if column in RESERVED else column


def form_of(cells: Sequence[Any], where: Where, column: str) -> AnswerForm:
    """Detect a column's format: probabilities if all rows sum to 1, else logits; labels if the cells are not lists.

    Raises InputError naming the row that does not match the others: mixed formats, or numbers between 0 and 1 that are
    neither.
    """
    mend = f"fix column {column}, or set its format with --teacher-form"
    found = [_numbers(cell, where, place, column) for place, cell in enumerate(cells)]
    vectors = [one for one in found if one is not None]
    if len(vectors) < len(found):
        if not vectors:
            return "labels"
        odd = next(place for place, one in enumerate(found) if (one is None) == (2 * len(vectors) >= len(found)))
        kinds = ("a single value", "a list of numbers")
        own, others = kinds if found[odd] is None else kinds[::-1]
        raise InputError(f"{where(odd)}: {own}, but other rows have {others}; {mend}")
    fits = [_are_probabilities(one) for one in vectors]
    if all(fits):
        return "probabilities"
    odd = fits.index(False)
    if sum(fits) > MIXED_SHARE * len(fits):
        raise InputError(
            f"{where(odd)}: the numbers are not probabilities (they sum to {sum(vectors[odd]):.4g}), but those of "
            f"{sum(fits):,} other rows are; {mend}"
        )
    if all(map(_are_shares, vectors)):
        raise InputError(
            f"{where(odd)}: the numbers are between 0 and 1 but sum to {sum(vectors[odd]):.4g}, so they are neither "
            f"probabilities nor clearly logits; {mend}"
        )
    return "logits"


def form_of_sets(cells: Sequence[Any], where: Where, column: str) -> AnswerForm:
    """As `form_of` for multi-label tasks: lists of numbers are probabilities if all are from 0 to 1.

    Raises InputError naming the row that does not match the others.
    """
    found = [_as_list(cell) for cell in cells]
    vectors = [one is not None and bool(one) and all(_is_plain_number(number) for number in one) for one in found]
    if not any(vectors):
        return "labels"
    if not all(vectors):
        odd = next(place for place, is_vector in enumerate(vectors) if is_vector == (2 * sum(vectors) < len(vectors)))
        own, others = ("a list of numbers", "labels") if vectors[odd] else ("no list of numbers", "lists of numbers")
        raise InputError(
            f"{where(odd)}: column {column} has {own}, but other rows have {others}; fix it, or set the format with "
            "--teacher-form"
        )
    shares = [_are_shares([float(number) for number in one or ()]) for one in found]
    if all(shares):
        return "probabilities"
    if sum(shares) > len(shares) / 2:
        odd = shares.index(False)
        raise InputError(
            f"{where(odd)}: column {column} has {_shown(cells[odd])}, but most other rows have numbers between 0 and "
            "1; fix it, or set the format with --teacher-form"
        )
    return "logits"


def _as_list(cell: Any) -> list[Any] | None:
    """A list, or the list in a JSON text; None for any other value."""
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        try:
            cell = json.loads(cell)
        except ValueError:
            return None
    return cell if isinstance(cell, list) else None


def _is_plain_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _numbers(cell: Any, where: Where, place: int, column: str) -> list[float] | None:
    """The numbers of a list, or of its JSON text; None for a single value. Raises InputError for anything else."""
    _check_is_there(cell, where, place, column)
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        try:
            cell = json.loads(cell)
        except ValueError as error:
            raise InputError(
                f"{where(place)}: column {column} has {_shown(cell)}, which is not a valid JSON list: {error}"
            ) from error
    if not isinstance(cell, list):
        return None
    for number in cell:
        if not _is_plain_number(number):
            raise InputError(
                f"{where(place)}: column {column} has {_shown(number)} in its list, which is not a finite number"
            )
    return [float(number) for number in cell]


def _are_shares(numbers: Sequence[float]) -> bool:
    return all(0 <= number <= 1 for number in numbers)


def _are_probabilities(numbers: Sequence[float]) -> bool:
    return _are_shares(numbers) and abs(sum(numbers) - 1) <= ROUNDING


def _check_is_there(cell: Any, where: Where, place: int, column: str) -> None:
    if is_missing(cell):
        raise InputError(f"{where(place)}: column {column} has no answer; fill it in, or remove the row")


def _shown(cell: Any) -> str:
    return repr(str(cell)[:40])
