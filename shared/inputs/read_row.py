"""A record of an input file -> a source row, or a quarantined row with the reason."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from shared.errors import InputError
from shared.glue import Task
from shared.inputs.columns import Columns
from shared.inputs.json_records import as_type
from shared.inputs.label_sets import LabelSetError, labels_of_cell, labels_of_columns
from shared.inputs.labels import is_missing, is_number, label_text, whole_number
from shared.inputs.options import InputOptions
from shared.inputs.records import Record
from shared.inputs.rows import QuarantinedRow, SourceRow

Cells = Sequence[Any]


def read_row(position: int, record: Record, columns: Columns, options: InputOptions) -> SourceRow | QuarantinedRow:
    """The row of a record, with its label as in the file. `position`: 0-based, among all rows of the input."""
    cells = record.cells
    reason = record.reason if cells is None else _problem(record, cells, columns, options)
    if cells is None or reason:
        return QuarantinedRow(position, record.where, reason, record.shown())
    rest: tuple[Any, ...] = ()
    if columns.rest:
        fields = zip(columns.rest, columns.rest_fields, strict=True)
        rest = tuple([as_type(cells[index], field.type) for index, field in fields])
    texts = columns.texts
    return SourceRow(
        position if columns.source_id is None else _source_id(cells[columns.source_id]),
        cells[texts[0]],
        cells[texts[1]] if len(texts) > 1 else None,
        _label(cells, columns, options),
        rest,
    )


def _problem(record: Record, cells: Cells, columns: Columns, options: InputOptions) -> str:
    """Why a row cannot be used; empty if it can."""
    for index in columns.texts:
        if problem := _text_problem(cells[index], options.max_characters):
            return f"column {columns.names[index]}: {problem}"
    for index in columns.not_texts:
        cell = cells[index]
        if isinstance(cell, (str, list, dict)) and _has_surrogate(cell):
            return f"column {columns.names[index]}: contains a lone surrogate"
    if problem := _problem_of_label(record, cells, columns, options):
        return problem
    if columns.source_id is not None and whole_number(value := cells[columns.source_id]) is None:
        if is_missing(value):
            return f"column {options.id_column}: the id is missing"
        return f"column {options.id_column}: {_shown(value)} is not a plain 64-bit integer"
    return ""


def _problem_of_label(record: Record, cells: Cells, columns: Columns, options: InputOptions) -> str:
    """Why a row's labels cannot be used; empty if they can. Raises InputError for a column of objects."""
    if columns.label is not None:
        name, cell = columns.names[columns.label], cells[columns.label]
        if isinstance(cell, dict):
            raise InputError(
                f"{record.where}: column {name} contains objects, not labels. Without --label-column, `augment_service "
                "run` copies the column unchanged"
            )
        if isinstance(cell, list) and options.task is not None:
            raise InputError(
                f"{record.where}: column {name} contains lists of labels, but {options.task.name} has one label per row"
            )
    try:
        label = _label(cells, columns, options)
    except LabelSetError as error:
        return str(error) if columns.label is None else f"column {columns.names[columns.label]}: {error}"
    if columns.label is None or isinstance(label, list):
        return ""
    if is_missing(label):
        return (
            "" if options.missing_labels == "keep" else f"column {columns.names[columns.label]}: the label is missing"
        )
    return _label_problem(label_text(label), options.task) if options.task is not None else ""


def _label(cells: Cells, columns: Columns, options: InputOptions) -> Any:
    """A row's label as in the file, or its class name; a list of texts if rows have several labels.

    None for a number without a class, such as -1, and for a missing label that is kept. Raises LabelSetError.
    """
    if columns.label_set:
        return labels_of_columns([cells[index] for index in columns.label_set], columns.label_set_names)
    if columns.label is None:
        return None
    cell, names = cells[columns.label], columns.label_names
    if isinstance(cell, list) or (columns.has_lists and (isinstance(cell, str) or not is_missing(cell))):
        return labels_of_cell(cell, names, options.label_separator)
    if not names or not isinstance(cell, int):
        return None if options.missing_labels == "keep" and is_missing(cell) else cell
    return names[cell] if 0 <= cell < len(names) else None


def _source_id(cell: Any) -> int:
    number = whole_number(cell)
    assert number is not None  # checked by _problem
    return number


def _text_problem(text: Any, max_characters: int) -> str:
    if not isinstance(text, str):
        return "the text is missing" if is_missing(text) else "not text"
    if not text or text.isspace():
        return "empty text"
    if "\x00" in text:
        return "contains a NUL byte"
    if len(text) > max_characters:
        return f"{len(text)} characters, more than --max-characters {max_characters}"
    if _has_surrogate(text):
        return "contains a lone surrogate"
    return ""


def _has_surrogate(value: str | list[Any] | dict[str, Any]) -> bool:
    """Whether a text, or any text within lists and objects, contains lone surrogates."""
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False)
    return not value.isascii() and any(0xD800 <= ord(letter) <= 0xDFFF for letter in value)


def _label_problem(label: str, task: Task) -> str:
    if task.labels is None:
        return "" if is_number(label) else f"label {_shown(label)} is not a number"
    if label not in task.labels:
        return f"label {_shown(label)} is not one of the labels of {task.name}: {', '.join(task.labels)}"
    return ""


def _shown(value: Any) -> str:
    return repr(str(value)[:40])
