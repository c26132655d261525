"""The columns of a prediction file: those of the input in their order, then the model's predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shared.errors import UsageError
from shared.inputs.rows import SourceRow
from shared.inputs.sources import Source
from trainer.inference import class_probabilities

Floats = NDArray[np.float32]

LABEL, LABELS, VALUE, PROBABILITY = "predicted_label", "predicted_labels", "predicted_value", "probability_"
DIGITS = 6
"""Decimals of probabilities and values: what fp32 holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputColumns:
    """How rows and predictions become columns. labels: the model's classes, or None for regression.

    multi_label: a row has the classes whose probability is at least `threshold`.
    """

    source: Source
    labels: tuple[str, ...] | None
    prefix: str = ""
    multi_label: bool = False
    threshold: float = 0.5

    def schema(self) -> pa.Schema:
        """Names and types. Raises UsageError when an input column has the same name as a prediction column."""
        own = [pa.field(name, kind) for name, kind in self._answers()]
        taken = set(self.source.columns.names)
        for field in own:
            if field.name in taken:
                raise UsageError(
                    f"the input already has a column {field.name}; rename the new columns with --prefix, such as "
                    f"--prefix student_"
                )
        return pa.schema([*self._carried(), *own])

    def columns(self, rows: Sequence[SourceRow], logits: Floats) -> list[Sequence[Any]]:
        """One sequence per column of the schema. logits: (rows, C)."""
        return [*self._cells(rows), *self._values(logits)]

    def predicted(self, logits: Floats) -> list[Any]:
        """The class, the classes, or the number, of each row."""
        if self.labels is None:
            return [round(float(value), DIGITS) for value in logits[:, 0]]
        if self.multi_label:
            given = class_probabilities(logits, True) >= self.threshold
            return [[name for name, is_given in zip(self.labels, row, strict=True) if is_given] for row in given]
        return [self.labels[index] for index in logits.argmax(-1)]

    def _answers(self) -> list[tuple[str, pa.DataType]]:
        if self.labels is None:
            return [(self.prefix + VALUE, pa.float64())]
        probabilities = [(f"{self.prefix}{PROBABILITY}{label}", pa.float64()) for label in self.labels]
        if self.multi_label:
            return [(self.prefix + LABELS, pa.list_(pa.string())), *probabilities]
        return [(self.prefix + LABEL, pa.string()), *probabilities]

    def _carried(self) -> list[pa.Field]:
        """Fields of the input's columns."""
        columns = self.source.columns
        kinds: dict[int, pa.DataType] = dict.fromkeys(columns.texts, pa.string())
        if columns.label is not None:
            kinds[columns.label] = self.source.label_type
        kinds |= {index: field.type for index, field in zip(columns.rest, columns.rest_fields, strict=True)}
        return [pa.field(name, kinds[index]) for index, name in enumerate(columns.names)]

    def _cells(self, rows: Sequence[SourceRow]) -> list[Sequence[Any]]:
        columns = self.source.columns
        cells: dict[int, Sequence[Any]] = {columns.texts[0]: [row.text_a for row in rows]}
        if len(columns.texts) > 1:
            cells[columns.texts[1]] = [row.text_b for row in rows]
        if columns.label is not None:
            cells[columns.label] = [row.label for row in rows]
        for place, index in enumerate(columns.rest):
            cells[index] = [row.rest[place] for row in rows]
        return [cells[index] for index in range(len(columns.names))]

    def _values(self, logits: Floats) -> list[Sequence[Any]]:
        if self.labels is None:
            return [self.predicted(logits)]
        probabilities = np.round(class_probabilities(logits, self.multi_label), DIGITS)
        return [self.predicted(logits), *(column.tolist() for column in probabilities.T)]
