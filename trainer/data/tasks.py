"""What a training command must know about its task: texts, labels, length and metrics, for GLUE or own data."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.errors import InputError
from shared.glue import get_task
from shared.inputs.labels import is_number
from shared.inputs.options import from_config
from shared.inputs.rows import QuarantinedRow, SourceRow
from shared.inputs.sources import Source, open_source
from trainer.config import TableConfig
from trainer.data.batches import Examples
from trainer.labels import find_label

logger = logging.getLogger(__name__)

SINGLE_LENGTH, PAIR_LENGTH = 64, 128
REGRESSION_METRICS = ("pearson", "spearman")
CLASSIFICATION_METRICS = ("accuracy", "f1_macro")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """labels: names of the classes in the order of the logits, or None for regression.

    metrics: names; the first one selects the best checkpoint.
    """

    name: str
    labels: tuple[str, ...] | None
    metrics: tuple[str, ...]

    @property
    def num_logits(self) -> int:
        """Width of the classifier."""
        return 1 if self.labels is None else len(self.labels)

    def encode_label(self, label: object, where: str) -> float:
        """Class index or number of a label; NaN for None. Raises InputError for a label outside the classes."""
        if label is None:
            return float("nan")
        if self.labels is None:
            if not is_number(str(label)):
                raise InputError(f"{where}: label {str(label)[:40]!r} is not a number, and the task is a regression")
            return float(str(label))
        index = find_label(self.labels, str(label))
        if index is None:
            raise InputError(
                f"{where}: label {str(label)[:40]!r} matches none of the classes {', '.join(self.labels)[:120]}; "
                "rename the model's classes with --label-map"
            )
        return float(index)


@dataclass(frozen=True, slots=True)
class Table:
    """Usable rows of a labelled file."""

    path: str
    rows: list[SourceRow]

    @property
    def has_pairs(self) -> bool:
        """Whether rows have two texts."""
        return bool(self.rows) and self.rows[0].text_b is not None

    def examples(self, spec: TaskSpec) -> Examples:
        """All rows with encoded labels."""
        labels = [spec.encode_label(row.label, f"{self.path} row {row.source_id}") for row in self.rows]
        return Examples(
            texts_a=[row.text_a for row in self.rows],
            texts_b=[row.text_b or "" for row in self.rows] if self.has_pairs else None,
            labels=np.asarray(labels, np.float32),
            keys=np.asarray([(row.source_id, 0) for row in self.rows], np.int64).reshape(-1, 2),
        )


def usable_rows(source: Source, path: str) -> tuple[list[SourceRow], list[QuarantinedRow]]:
    """All rows of a labelled file, and those set aside. Raises InputError when most of them cannot be used."""
    rows: list[SourceRow] = []
    refused: list[QuarantinedRow] = []
    for item in source.rows():
        if isinstance(item, SourceRow):
            rows.append(item)
        else:
            refused.append(item)
    if len(refused) > len(rows):
        first = refused[0]
        raise InputError(
            f"{path}: {len(refused):,} of {len(rows) + len(refused):,} rows cannot be used, for example "
            f"{first.where}: {first.reason}"
        )
    return rows, refused


def read_table(path: str, config: TableConfig) -> Table:
    """Read a labelled file. Rows that cannot be used are left out and counted in a warning. Raises InputError."""
    source = open_source(from_config(config, input=(path,)))
    if source.columns.label is None and config.task:
        raise InputError(f"{path} has no labels: it has the layout of {config.task}'s test files. Give a labelled file")
    if source.columns.label is None:
        raise InputError(f"{path} has no label column: name it with --label-column")
    rows, refused = usable_rows(source, path)
    if refused:
        first = refused[0]
        logger.warning(
            "rows_left_out", extra={"fields": {"count": len(refused), "first": f"{first.where}: {first.reason}"}}
        )
    return Table(path, rows)


def glue_spec(name: str) -> TaskSpec:
    """A GLUE task's spec. Raises UsageError for an unknown name."""
    task = get_task(name)
    return TaskSpec(name=task.name, labels=task.labels, metrics=task.metrics)


def own_spec(labels: Sequence[object], regression: bool, path: str) -> TaskSpec:
    """The spec of a user's own data, from its training labels. Raises InputError when they do not form a task."""
    if regression:
        for label in labels:
            if not is_number(str(label)):
                raise InputError(f"{path}: label {str(label)[:40]!r} is not a number (--regression)")
        return TaskSpec(name="regression", labels=None, metrics=REGRESSION_METRICS)
    names = sorted(
        {str(label) for label in labels}, key=lambda name: (len(name), name) if name.isdigit() else (99, name)
    )
    if len(names) < 2:
        raise InputError(f"{path}: all labels are {names[0]!r}; a task needs two classes")
    if len(names) > 1000:
        raise InputError(f"{path}: {len(names)} different labels; to predict numbers, use --regression")
    return TaskSpec(name="classification", labels=tuple(names), metrics=CLASSIFICATION_METRICS)


def sequence_length(requested: int | None, has_pairs: bool) -> int:
    """--max-length, or the reference's: 64 tokens for single texts, 128 for pairs."""
    return requested or (PAIR_LENGTH if has_pairs else SINGLE_LENGTH)
