"""What a training command needs to know about its task: texts, labels, length and metrics, for GLUE or own data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shared.errors import InputError, UsageError
from shared.glue import get_task
from shared.inputs.arrow_cells import to_array
from shared.inputs.labels import is_number, label_text
from shared.inputs.options import from_config
from shared.inputs.rows import QuarantinedRow, SourceRow
from shared.inputs.sources import Source, open_source
from shared.model_folder import MULTI_LABEL
from trainer.config import GivenAnswersConfig, TableConfig
from trainer.data.batches import Examples
from trainer.labels import find_label

logger = logging.getLogger(__name__)

SINGLE_LENGTH, PAIR_LENGTH = 64, 128
MAX_CLASSES = 1000
REGRESSION_METRICS = ("pearson", "spearman")
CLASSIFICATION_METRICS = ("accuracy", "f1_macro")
MULTI_LABEL_METRICS = ("f1_micro", "f1_macro", "exact_match")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """labels: names of the classes in the order of the logits, or None for regression.

    metrics: names; the first one selects the best checkpoint. multi_label: a row has any number of classes, and each
    logit is independent (sigmoid).
    """

    name: str
    labels: tuple[str, ...] | None
    metrics: tuple[str, ...]
    multi_label: bool = False

    @property
    def num_logits(self) -> int:
        """Width of the classifier."""
        return 1 if self.labels is None else len(self.labels)

    @property
    def problem_type(self) -> str:
        """transformers' name for the task in a model's configuration."""
        if self.labels is None:
            return "regression"
        return MULTI_LABEL if self.multi_label else "single_label_classification"

    def encode_labels(self, labels: Sequence[object], where: Callable[[int], str]) -> NDArray[np.float32]:
        """(rows,) float32 as in `encode_label`; (rows, C) float32 of 0 and 1 for several labels, NaN for None.

        where: row index -> name for messages. Raises InputError.
        """
        if not self.multi_label:
            code: dict[Any, float] = {}
            for place, label in enumerate(labels):
                if isinstance(label, list):
                    raise InputError(f"{where(place)}: a list of labels, but the model predicts one label per text")
                if label not in code:
                    code[label] = self.encode_label(label, where(place))
            return np.asarray([code[label] for label in labels], np.float32)
        names = self.labels or ()
        known: dict[Any, int] = {}
        encoded = np.zeros((len(labels), len(names)), np.float32)
        for place, several in enumerate(labels):
            if several is None:
                encoded[place] = np.nan
                continue
            if not isinstance(several, list):
                raise InputError(
                    f"{where(place)}: a single label, {str(several)[:40]!r}, but the model predicts several per text; "
                    "name the label columns with --multi-label"
                )
            for one in several:
                if one not in known:
                    known[one] = int(self.encode_label(one, where(place)))
                encoded[place, known[one]] = 1.0
        return encoded

    def encode_label(self, label: object, where: str) -> float:
        """Class index or number of one label; NaN for None. Raises InputError for a label outside the classes."""
        if label is None:
            return float("nan")
        if self.labels is None:
            if not is_number(str(label)):
                raise InputError(f"{where}: label {str(label)[:40]!r} is not a number, but the task is regression")
            return float(str(label))
        index = find_label(self.labels, label_text(label))
        if index is None:
            raise InputError(
                f"{where}: label {str(label)[:40]!r} matches none of the classes {', '.join(self.labels)[:120]}; "
                "rename the model's classes with --label-map"
            )
        return float(index)


@dataclass(frozen=True, slots=True)
class Table:
    """Usable rows of a labelled file. label_names: names of the label columns, if each label has its own.

    rest_fields: names and types of the cells in `SourceRow.rest`.
    """

    path: str
    rows: list[SourceRow]
    label_names: tuple[str, ...] = ()
    rest_fields: tuple[pa.Field, ...] = ()

    @property
    def has_pairs(self) -> bool:
        """Whether rows have two texts."""
        return bool(self.rows) and self.rows[0].text_b is not None

    @property
    def multi_label(self) -> bool:
        """Whether a row can have several labels."""
        return any(isinstance(row.label, list) for row in self.rows)

    def where(self, place: int) -> str:
        """Name of a row, by its index in `rows`, for messages."""
        return f"{self.path} row {self.rows[place].source_id}"

    def cells(self, name: str) -> list[Any] | None:
        """The values of a column without a role; None if there is no such column."""
        for place, one in enumerate(self.rest_fields):
            if one.name == name:
                values: list[Any] = to_array([row.rest[place] for row in self.rows], one.type).to_pylist()
                return values
        return None

    def examples(self, spec: TaskSpec) -> Examples:
        """All rows with encoded labels."""
        labels = spec.encode_labels([row.label for row in self.rows], self.where)
        return Examples(
            texts_a=[row.text_a for row in self.rows],
            texts_b=[row.text_b or "" for row in self.rows] if self.has_pairs else None,
            labels=labels,
            keys=np.asarray([(row.source_id, 0) for row in self.rows], np.int64).reshape(-1, 2),
        )


def usable_rows(source: Source, path: str) -> tuple[list[SourceRow], list[QuarantinedRow]]:
    """The usable rows of a labelled file, and those set aside. Raises InputError when most rows are unusable."""
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
    """Read a labelled file. Unusable rows are left out and counted in a warning. Raises InputError."""
    source = open_source(from_config(config, input=(path,)))
    if not source.columns.has_label and config.task:
        raise InputError(f"{path} has no labels: it has the layout of {config.task}'s test files. Pass a labelled file")
    if not source.columns.has_label:
        raise InputError(f"{path} has no label column: name it with --label-column")
    rows, refused = usable_rows(source, path)
    if refused:
        first = refused[0]
        logger.warning(
            "rows_left_out", extra={"fields": {"count": len(refused), "first": f"{first.where}: {first.reason}"}}
        )
    return Table(path, rows, source.columns.label_set_names, source.rest_fields)


def glue_spec(name: str) -> TaskSpec:
    """A GLUE task's spec. Raises UsageError for an unknown name."""
    task = get_task(name)
    return TaskSpec(name=task.name, labels=task.labels, metrics=task.metrics)


def own_spec(labels: Sequence[object], regression: bool, path: str, label_names: Sequence[str] = ()) -> TaskSpec:
    """The spec of a user's own data, from its training labels. Raises InputError when they do not form a task.

    label_names: the labels of a multi-label task, if the file has a column for each; else those that occur.
    """
    several = [isinstance(label, list) for label in labels]
    if any(several):
        if regression:
            raise InputError(f"{path}: rows have lists of labels; leave out --regression")
        return _multi_label_spec(labels, path, label_names)
    if regression:
        for label in labels:
            if not is_number(str(label)):
                raise InputError(f"{path}: label {str(label)[:40]!r} is not a number, which --regression needs")
        return TaskSpec(name="regression", labels=None, metrics=REGRESSION_METRICS)
    names = _in_order({str(label) for label in labels})
    if len(names) < 2:
        raise InputError(f"{path}: all labels are {names[0]!r}; a task needs at least two classes")
    if len(names) > MAX_CLASSES:
        raise InputError(
            f"{path}: {len(names):,} different labels, but at most {MAX_CLASSES:,} are supported; to predict numbers, "
            "use --regression"
        )
    return TaskSpec(name="classification", labels=tuple(names), metrics=CLASSIFICATION_METRICS)


def given_spec(
    config: GivenAnswersConfig,
    labels: Sequence[object],
    path: str,
    *,
    is_number: bool,
    label_names: Sequence[str] = (),
) -> TaskSpec:
    """The spec of data whose answers are in --teacher-column: its classes are in the order of the numbers there.

    labels: of the rows of `path`; label_names: as in `own_spec`. is_number: whether the task is regression. Raises
    InputError, UsageError.
    """
    task = getattr(config, "task", None)
    if task is not None:
        spec = glue_spec(task)
        if (spec.labels is None) != is_number:
            raise UsageError(f"--teacher-form {config.teacher_form} does not fit --task {spec.name}")
        if config.teacher_classes and sorted(config.teacher_classes) != sorted(spec.labels or ()):
            raise UsageError(
                f"--teacher-classes: the classes of {spec.name} are {', '.join(spec.labels or ('a number',))}"
            )
        return replace(spec, labels=config.teacher_classes or spec.labels)
    spec = own_spec(labels, is_number, path, label_names)
    if is_number or not config.teacher_classes:
        return spec
    unknown = [label for label in spec.labels or () if find_label(config.teacher_classes, label) is None]
    if unknown:
        named = " ".join(config.teacher_classes)[:120]
        raise InputError(
            f"{path}: label {unknown[0][:40]!r} is not one of --teacher-classes {named}: name every class, in the "
            "order of the numbers"
        )
    return replace(spec, labels=config.teacher_classes)


def _multi_label_spec(labels: Sequence[object], path: str, label_names: Sequence[str]) -> TaskSpec:
    names = list(label_names) or _in_order({str(one) for row in labels if isinstance(row, list) for one in row})
    if len(names) < 2:
        what = f"the only label is {names[0]!r}" if names else "no row has a label"
        raise InputError(f"{path}: {what}; a multi-label task needs at least two labels")
    if len(names) > MAX_CLASSES:
        raise InputError(f"{path}: {len(names):,} different labels, but at most {MAX_CLASSES:,} are supported")
    return TaskSpec(name="multi-label", labels=tuple(names), metrics=MULTI_LABEL_METRICS, multi_label=True)


def _in_order(names: Iterable[str]) -> list[str]:
    """Sorted; numbers by value."""
    return sorted(names, key=lambda name: (len(name), name) if name.isdigit() else (99, name))


def sequence_length(requested: int | None, has_pairs: bool) -> int:
    """--max-length, or the reference implementation's: 64 tokens for single texts, 128 for pairs."""
    return requested or (PAIR_LENGTH if has_pairs else SINGLE_LENGTH)
