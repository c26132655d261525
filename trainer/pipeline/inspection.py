"""Reads and checks a labelled file before minutes are spent on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from shared.errors import InputError, UsageError
from shared.inputs.headers import read_header
from shared.inputs.labels import is_number, label_text
from shared.inputs.options import from_config
from shared.inputs.rows import QuarantinedRow, SourceRow
from shared.inputs.sources import open_source
from shared.inputs.table_files import SUFFIXES
from shared.storage.input_files import expand
from trainer.data.given_answers import GivenAnswers, carried_name, form_of, form_of_sets
from trainer.data.split import text_hashes
from trainer.data.tasks import Table, given_spec, usable_rows
from trainer.labels import find_label
from trainer.pipeline.columns import choose_columns
from trainer.pipeline.config import DistillConfig

MIN_ROWS, MIN_CLASS_ROWS = 100, 8
MANY_CLASSES, ROWS_PER_CLASS = 100, 50
NUMBERS_AS_CLASSES = 30
MISSING = {"nan", "n/a", "na", "null", "none", "<na>", "#n/a"}
"""Texts that other programs write for a missing value."""

_Judged = tuple[list[SourceRow], dict[str, int], list[str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """Usable rows of a file. counts: rows of each class, empty for regression; decided: choices made for the user.

    label_column: the column of the label, or of the list of labels, in the files made from these rows. refused: rows
    set aside; duplicates: rows whose text occurred before; contradictions: texts with different labels. answers: format
    of --teacher-column, if given; the one cell in a row's `rest` is then its logits, a list of floats. rare: labels
    removed by --drop-rare.
    """

    text_columns: tuple[str, ...]
    label_column: str
    label_type: Any
    rows: list[SourceRow]
    refused: list[QuarantinedRow]
    counts: dict[str, int]
    duplicates: int
    contradictions: int
    decided: list[str] = field(default_factory=list)
    answers: GivenAnswers | None = None
    rare: frozenset[str] = frozenset()

    @property
    def has_pairs(self) -> bool:
        """Whether rows have two texts."""
        return len(self.text_columns) == 2

    @property
    def multi_label(self) -> bool:
        """Whether a row can have several labels."""
        return any(isinstance(row.label, list) for row in self.rows)

    def hashes(self) -> Any:
        """(rows,) uint64 hash of each row's words."""
        return text_hashes(*texts_of(self.rows, self.has_pairs))

    def classes(self) -> Any:
        """(rows,) int64 class indices; zeros for regression.

        For multi-label tasks (rows, C + 1) bool: whether the row has each label, and whether it has no label.
        """
        if self.multi_label:
            return np.asarray([[*(name in row.label for name in self.counts), not row.label] for row in self.rows])
        numbers = {label: number for number, label in enumerate(self.counts)}
        return np.asarray([numbers.get(label_text(row.label), 0) for row in self.rows], np.int64)

    def description(self, path: str) -> list[str]:
        """Facts about the file for the user, as lines."""
        words = sorted(len(row.text_a.split()) + len((row.text_b or "").split()) for row in self.rows)
        lines = [
            f"{path}: {len(self.rows):,} rows, {'text pairs' if self.has_pairs else 'single texts'}, words per row: "
            f"{words[len(words) // 2]} (median), {words[len(words) * 98 // 100]} (98%), {words[-1]} (maximum)"
        ]
        if self.counts:
            shown = sorted(self.counts.items(), key=lambda one: -one[1])
            listed = ", ".join(f"{name} {count:,}" for name, count in shown[:6])
            more = f" and {len(shown) - 6} more" if len(shown) > 6 else ""
            if self.multi_label:
                without = sum(not row.label for row in self.rows)
                lines.append(f"{len(shown)} labels, any number per row: {listed}{more}; {without:,} rows have none")
            else:
                lines.append(f"{len(shown)} classes: {listed}{more}")
        else:
            numbers = [float(row.label) for row in self.rows]
            lines.append(f"a number to predict, from {min(numbers):g} to {max(numbers):g}")
        if self.duplicates:
            lines.append(f"{self.duplicates:,} rows repeat a text; identical texts stay in one part of the split")
        if self.contradictions:
            lines.append(f"{self.contradictions:,} texts have conflicting labels")
        if self.refused:
            first = self.refused[0]
            lines.append(f"{len(self.refused):,} rows set aside; the first: {first.where}: {first.reason}")
        lines += doubtful_classes(list(self.counts))
        return [*lines, *(f"decided: {one}" for one in self.decided)]


def inspect(config: DistillConfig) -> Inspection:
    """Read and check --data. Raises InputError, UsageError: one line saying what is wrong and how to fix it."""
    options = from_config(config, input=(config.data,), text_column=(), label_column=None)
    names = read_header(expand((config.data,), SUFFIXES), options).names
    texts, label, decided = _choose_columns(names, config)
    source = open_source(replace(options, text_column=texts, label_column=None if config.multi_label else label))
    rows, refused = usable_rows(source, config.data)
    _check_enough(rows, config)
    judge = _judge_label_sets if any(isinstance(row.label, list) for row in rows) else _judge_labels
    rows, counts, rare, dropped = judge(rows, config)
    if dropped:
        decided.append(dropped)
    answers = None
    if config.teacher_column is not None:
        table = Table(config.data, rows, source.columns.label_set_names, source.rest_fields)
        answers = _answers(config, table, names)
        rows = _with_answers(table, answers)
        order = f" of {', '.join(answers.labels)}, in this order" if answers.labels else ""
        decided.append(f"column {answers.column!r} holds {answers.form}{order}")
    hashes = text_hashes(*texts_of(rows, len(texts) == 2))
    labels: dict[int, set[str]] = {}
    for one, row in zip(hashes.tolist(), rows, strict=True):
        labels.setdefault(one, set()).add(label_text(sorted(row.label) if isinstance(row.label, list) else row.label))
    return Inspection(
        text_columns=texts,
        label_column=label,
        label_type=source.label_type,
        rows=rows,
        refused=refused,
        counts=counts,
        duplicates=len(rows) - len(labels),
        contradictions=sum(len(found) > 1 for found in labels.values()) if counts else 0,
        decided=decided,
        answers=answers,
        rare=frozenset(rare),
    )


def read_rows(path: str, config: DistillConfig, inspection: Inspection) -> list[SourceRow]:
    """The usable rows of --dev or --test, with the teacher's answers if they have that column. Raises InputError."""
    column = None if config.multi_label else inspection.label_column
    options = from_config(config, input=(path,), text_column=inspection.text_columns, label_column=column)
    source = open_source(options)
    rows, _ = usable_rows(source, path)
    if not rows:
        raise InputError(f"{path} has no rows")
    if inspection.answers is None:
        return rows
    return _with_answers(Table(path, rows, rest_fields=source.rest_fields), inspection.answers)


def without_rare(rows: Sequence[SourceRow], rare: Collection[str]) -> list[SourceRow]:
    """Apply --drop-rare to rows of --dev or --test: drop rows of rare classes, or the rare labels of a row."""
    if not rare:
        return list(rows)
    return [
        replace(row, label=[label for label in row.label if label not in rare]) if isinstance(row.label, list) else row
        for row in rows
        if isinstance(row.label, list) or label_text(row.label) not in rare
    ]


def check_labels(rows: Sequence[SourceRow], classes: Collection[str], inspection: Inspection, where: str) -> None:
    """Raises InputError for rows with labels that a step would reject minutes later.

    classes: the models' classes; empty for regression. where: the option and its file.
    """
    names = tuple(classes)
    if any(isinstance(row.label, list) != inspection.multi_label for row in rows):
        kinds = {True: "lists of labels", False: "one label per text"}
        raise InputError(
            f"{where} has {kinds[not inspection.multi_label]}, but --data has {kinds[inspection.multi_label]}"
        )
    bad: dict[str, list[int]] = {}
    for row in rows:
        for label in row.label if isinstance(row.label, list) else (row.label,):
            text = label_text(label)
            if find_label(names, text) is None if names else not is_number(text):
                bad.setdefault(text, []).append(row.source_id)
    if not bad:
        return
    label, places = next(iter(bad.items()))
    others = f"; {len(bad)} labels have this problem" if len(bad) > 1 else ""
    what = "is not a number, which --regression needs"
    if names:
        what = (
            f"is not one of the classes {', '.join(names)[:120]}: correct it, remove its rows, or add rows of this "
            "class to --data"
        )
    raise InputError(
        f"{where}: label {label[:40]!r} ({len(places):,} of {len(rows):,} rows, the first is row {places[0]}) {what}"
        f"{others}"
    )


def read_unlabelled(config: DistillConfig, inspection: Inspection) -> list[SourceRow]:
    """The usable rows of --unlabelled. Raises InputError."""
    columns: dict[str, Any] = {"text_column": inspection.text_columns, "label_column": None, "multi_label": ()}
    rows, _ = usable_rows(open_source(from_config(config, input=config.unlabelled, **columns)), "--unlabelled")
    return [replace(row, rest=()) for row in rows]


def _answers(config: DistillConfig, table: Table, names: Sequence[str]) -> GivenAnswers:
    """Detect the format of --teacher-column. Raises InputError, UsageError."""
    column = str(config.teacher_column)
    cells = table.cells(carried_name(column))
    if cells is None:
        raise InputError(f"--teacher-column {column}: {table.path} has only the columns {', '.join(names)[:300]}")
    labels = [row.label for row in table.rows]
    spec = given_spec(config, labels, table.path, is_number=config.regression, label_names=table.label_names)
    form = config.teacher_form
    if form == "auto":
        kind = form_of_sets if table.multi_label else form_of
        form = "number" if config.regression else kind(cells, table.where, column)
    return GivenAnswers(
        column=column, form=form, labels=spec.labels, multi_label=spec.multi_label, separator=config.label_separator
    )


def _with_answers(table: Table, answers: GivenAnswers) -> list[SourceRow]:
    """The rows with their answers as logits in `rest`, which is empty if there are none. Raises InputError."""
    cells = table.cells(carried_name(answers.column))
    if cells is None:
        return [replace(row, rest=()) for row in table.rows]
    logits = answers.logits(cells, table.where).tolist()
    return [replace(row, rest=(own,)) for row, own in zip(table.rows, logits, strict=True)]


def texts_of(rows: Sequence[SourceRow], has_pairs: bool) -> tuple[list[str], list[str] | None]:
    """First texts, and the second ones of pairs."""
    return [row.text_a for row in rows], [row.text_b or "" for row in rows] if has_pairs else None


def _choose_columns(names: Sequence[str], config: DistillConfig) -> tuple[tuple[str, ...], str, list[str]]:
    """As in `choose_columns`; the label is --multi-label's column, or the name of the list that replaces several."""
    if not config.multi_label:
        names = [name for name in names if name != config.teacher_column]
        return choose_columns(names, config.text_column, config.label_column, config.data)
    by_index = {str(place): name for place, name in enumerate(names)}
    columns = [one if one in names else by_index.get(one, one) for one in config.multi_label]
    others = [name for name in names if name not in columns[1:]]
    texts, _, decided = choose_columns(others, config.text_column, columns[0], config.data)
    name = columns[0] if len(columns) == 1 else "labels"
    return texts, name if name not in texts else f"{name}_of_row", decided


def doubtful_classes(names: Sequence[str]) -> list[str]:
    """Warnings about suspicious class names, as lines."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(" ".join(name.split()).casefold(), []).append(name)
    lines = [
        f"warning: classes {', '.join(map(repr, same))} differ only in case or spaces; if they are one class, use "
        "one spelling"
        for same in alike.values()
        if len(same) > 1
    ]
    missing = [name for name in names if name.strip().casefold() in MISSING]
    if missing:
        lines.append(
            f"warning: class {missing[0]!r} looks like a missing label; to leave these rows out, empty their cells"
        )
    return lines


def _check_enough(rows: list[SourceRow], config: DistillConfig) -> None:
    if len(rows) < MIN_ROWS:
        raise InputError(
            f"{config.data}: {len(rows)} rows are too few for training, validation and testing: at least {MIN_ROWS} "
            "are needed, and several thousand are better. Label more rows"
        )


def _judge_label_sets(rows: list[SourceRow], config: DistillConfig) -> _Judged:
    """As `_judge_labels`, for rows with a list of labels. A rare label is removed from its rows; the rows stay."""
    if config.regression:
        raise InputError(f"{config.data}: rows have lists of labels; leave out --regression")
    counts = Counter(label for row in rows for label in row.label)
    rare = sorted(label for label, count in counts.items() if count < MIN_CLASS_ROWS)
    if rare and not config.drop_rare:
        raise InputError(
            f"{config.data}: label {rare[0][:40]!r} has only {counts[rare[0]]} rows"
            + (f" ({len(rare)} labels have fewer than {MIN_CLASS_ROWS})" if len(rare) > 1 else "")
            + f"; training, validation and testing need at least {MIN_CLASS_ROWS}. Label more rows, or add --drop-rare"
        )
    left = {label: counts[label] for label in sorted(counts) if label not in rare}
    if len(left) < 2:
        raise InputError(f"{config.data}: a multi-label task needs two labels with at least {MIN_CLASS_ROWS} rows each")
    if rare:
        rows = [replace(row, label=[label for label in row.label if label in left]) for row in rows]
    return rows, left, rare, f"{len(rare)} rare labels are removed from their rows" if rare else ""


def _judge_labels(rows: list[SourceRow], config: DistillConfig) -> _Judged:
    """Rows, rows per class, rare classes, and a message on what was left out. Raises InputError, UsageError."""
    counts = Counter(label_text(row.label) for row in rows)
    are_numbers = all(is_number(label) for label in counts)
    if config.regression:
        other = next((label for label in counts if not is_number(label)), None)
        if other is not None:
            raise InputError(f"{config.data}: label {other[:40]!r} is not a number; leave out --regression for classes")
        if len(counts) < 2:
            raise InputError(f"{config.data}: all labels are {next(iter(counts))}; there is nothing to predict")
        return rows, {}, [], ""
    if len(counts) < 2:
        raise InputError(
            f"{config.data}: all labels are {next(iter(counts))[:40]!r}; a task needs at least two classes"
        )
    if are_numbers and (len(counts) > NUMBERS_AS_CLASSES or any("." in label for label in counts)):
        raise UsageError(
            f"{config.data}: the labels are {len(counts):,} different numbers, from {min(map(float, counts)):g} to "
            f"{max(map(float, counts)):g}: add --regression to predict a number, or group them into classes"
        )
    if len(counts) > MANY_CLASSES and len(rows) < ROWS_PER_CLASS * len(counts):
        raise InputError(
            f"{config.data}: {len(counts):,} classes for {len(rows):,} rows, {len(rows) / len(counts):.1f} per class; "
            f"this many classes need {ROWS_PER_CLASS} rows per class. Check --label-column, or merge classes"
        )
    rare = sorted(label for label, count in counts.items() if count < MIN_CLASS_ROWS)
    if rare and not config.drop_rare:
        raise InputError(
            f"{config.data}: class {rare[0][:40]!r} has only {counts[rare[0]]} rows"
            + (f" ({len(rare)} classes have fewer than {MIN_CLASS_ROWS})" if len(rare) > 1 else "")
            + f"; training, validation and testing need at least {MIN_CLASS_ROWS}. Label more rows, merge the class "
            "with another, or add --drop-rare"
        )
    kept = [row for row in rows if label_text(row.label) not in rare]
    left = {label: counts[label] for label in sorted(counts) if label not in rare}
    if len(left) < 2:
        raise InputError(f"{config.data}: fewer than two classes have at least {MIN_CLASS_ROWS} rows")
    return kept, left, rare, f"{len(rows) - len(kept)} rows of {len(rare)} rare classes are dropped" if rare else ""
