"""Input files -> rows in order, or quarantine records; two passes over files that are never held in memory.

The first pass counts rows, hashes the files and settles the label's type; the second streams. A row's place decides
its source id and its shard. How files become records is shared.inputs.records'.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from shared.errors import InputError, UsageError
from shared.glue import Task, get_task
from shared.inputs.records import KINDS, SHOWN_RAW, Record, file_kind, read_header, read_records
from shared.inputs.rows import QuarantinedRow, SourceRow
from shared.storage.input_files import expand, sha256_of

_RESERVED = {"source_id", "n", "text_a", "text_b", "label", "replaced", "base_a", "base_b", "sites_a", "sites_b"}
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?", re.ASCII)


class InputOptions(Protocol):
    """What the options of a command say about its input; RunConfig and the trainer's configurations have them."""

    @property
    def input(self) -> tuple[str, ...]:
        """Files, folders or globs."""
        ...

    @property
    def task(self) -> str | None:
        """GLUE task."""
        ...

    @property
    def text_column(self) -> tuple[str, ...]:
        """Text columns, by name or index."""
        ...

    @property
    def label_column(self) -> str | None:
        """Label column."""
        ...

    @property
    def id_column(self) -> str | None:
        """Column of source ids."""
        ...

    @property
    def max_characters(self) -> int:
        """Longer texts are refused."""
        ...

    @property
    def limit(self) -> int | None:
        """Only so many rows."""
        ...


@dataclass(frozen=True, slots=True)
class Source:
    """What the first pass found: files with their hashes, columns, types, and how many rows there are."""

    files: tuple[tuple[str, str], ...]
    columns: tuple[str, ...]
    text_columns: tuple[int, ...]
    label_column: int | None
    id_column: int | None
    label_type: pa.DataType
    rest_fields: tuple[pa.Field, ...]
    num_rows: int


def open_source(options: InputOptions) -> Source:
    """First pass. Raises InputError and UsageError naming file and column."""
    paths = _expand(options.input)
    task = get_task(options.task) if options.task else None
    columns, types = read_header(paths, task)
    text = tuple(_column(name, columns, "--text-column") for name in options.text_column)
    label = _column(options.label_column, columns, "--label-column") if options.label_column is not None else None
    if task is not None and not text:
        _check_width(paths[0], task, columns)
        text = task.text_columns
        if label is None and task.label_column < len(columns):
            label = task.label_column
    ids = _column(options.id_column, columns, "--id-column") if options.id_column is not None else None
    for flag, one in (("--text-column", text[1:]), ("--label-column", (label,)), ("--id-column", (ids,))):
        if set(one) & set(text[:1]):
            raise UsageError(f"{flag}: column {columns[text[0]]} is the first --text-column already")
    skipped = {*text, label, ids}
    rest = tuple(
        pa.field(f"{name}_input" if name in _RESERVED else name, types[index] if types else pa.string())
        for index, name in enumerate(columns)
        if index not in skipped
    )
    files = tuple((path, sha256_of(path)) for path in paths)
    draft = Source(files, columns, text, label, ids, pa.null(), rest, 0)
    return _survey(draft, options, task, types)


def read_rows(source: Source, options: InputOptions) -> Iterator[SourceRow | QuarantinedRow]:
    """Second pass: one item per row, in order, up to --limit."""
    task = get_task(options.task) if options.task else None
    for position, record in enumerate(read_records([path for path, _ in source.files], task, source.columns)):
        if options.limit is not None and position >= options.limit:
            return
        item = _row(position, record, source, options, task)
        yield _typed(item, source.label_type) if isinstance(item, SourceRow) else item


def _survey(draft: Source, options: InputOptions, task: Task | None, types: Sequence[pa.DataType] | None) -> Source:
    count = usable = 0
    first_problem: QuarantinedRow | None = None
    kinds: set[str] = set()
    seen: set[int] = set()
    for item in read_rows(draft, options):
        count += 1
        if isinstance(item, QuarantinedRow):
            first_problem = first_problem or item
            continue
        usable += 1
        kinds.add(_label_kind(item.label))
        if draft.id_column is not None:
            if item.source_id in seen:
                raise InputError(f"--id-column {options.id_column}: the id {item.source_id} stands twice")
            seen.add(item.source_id)
    names = ", ".join(path for path, _ in draft.files)
    if not count:
        raise InputError(f"{names}: no rows")
    if not usable and first_problem:
        raise InputError(f"{names}: none of {count} rows can be used; {first_problem.where}: {first_problem.reason}")
    column = draft.label_column
    label = types[column] if types and column is not None else _label_type(kinds)
    return Source(
        draft.files, draft.columns, draft.text_columns, draft.label_column, draft.id_column, label, draft.rest_fields,
        count,
    )  # fmt: skip


def _row(
    position: int, record: Record, source: Source, options: InputOptions, task: Task | None
) -> SourceRow | QuarantinedRow:
    def refuse(reason: str) -> QuarantinedRow:
        return QuarantinedRow(position, record.where, reason, record.raw[:SHOWN_RAW])

    if record.cells is None:
        return refuse(record.reason)
    cells = record.cells
    texts = [cells[index] for index in source.text_columns]
    for index, text in zip(source.text_columns, texts, strict=True):
        name = source.columns[index]
        if not isinstance(text, str):
            return refuse(f"column {name}: no text")
        if not text.strip():
            return refuse(f"column {name}: empty text")
        if "\x00" in text:
            return refuse(f"column {name}: holds a NUL byte")
        if len(text) > options.max_characters:
            return refuse(f"column {name}: {len(text)} characters, --max-characters is {options.max_characters}")
        if not text.isascii() and any(0xD800 <= ord(letter) <= 0xDFFF for letter in text):
            return refuse(f"column {name}: holds a lone surrogate")
    label = None if source.label_column is None else cells[source.label_column]
    if source.label_column is not None and (label is None or str(label).strip() == ""):
        return refuse(f"column {source.columns[source.label_column]}: the label is missing")
    if task is not None and source.label_column is not None:
        if task.labels is not None and str(label) not in task.labels:
            return refuse(f"label {str(label)[:40]!r} is none of {task.name}'s: {', '.join(task.labels)}")
        if task.labels is None and not _is_number(str(label)):
            return refuse(f"label {str(label)[:40]!r} is no number")
    source_id = position
    if source.id_column is not None:
        value = cells[source.id_column]
        if isinstance(value, bool) or not _WHOLE_NUMBER.fullmatch(str(value)):
            return refuse(f"column {options.id_column}: {str(value)[:40]!r} is no whole number of at most 18 digits")
        source_id = int(value)
    skipped = {*source.text_columns, source.label_column, source.id_column}
    rest = tuple(cell for index, cell in enumerate(cells) if index not in skipped)
    rest = tuple(
        json.dumps(cell) if isinstance(cell, (int, float)) and pa.types.is_string(field.type) else cell
        for cell, field in zip(rest, source.rest_fields, strict=True)
    )
    return SourceRow(source_id, texts[0], texts[1] if len(texts) > 1 else None, label, rest)


def _typed(row: SourceRow, label_type: pa.DataType) -> SourceRow:
    label = row.label
    if isinstance(label, str) and pa.types.is_int64(label_type):
        label = int(label)
    elif isinstance(label, (str, int)) and pa.types.is_float64(label_type):
        label = float(label)
    elif label is not None and pa.types.is_string(label_type) and not isinstance(label, str):
        label = json.dumps(label, ensure_ascii=False)
    return SourceRow(row.source_id, row.text_a, row.text_b, label, row.rest)


def _column(name: str, columns: Sequence[str], flag: str) -> int:
    if name in columns:
        return columns.index(name)
    if name.isdigit() and int(name) < len(columns):
        return int(name)
    raise InputError(f"{flag} {name}: the input has the columns {', '.join(columns)} (0 to {len(columns) - 1})")


def _check_width(path: str, task: Task, columns: Sequence[str]) -> None:
    if file_kind(path) != "tsv":
        raise UsageError(f"{path}: --task {task.name} knows the columns of GLUE's TSV only; add --text-column")
    if len(columns) <= max(task.text_columns):
        raise InputError(
            f"{path} line 1: {len(columns)} columns, --task {task.name} needs {task.num_columns}. Check the delimiter, "
            "or name the columns with --text-column."
        )


def _expand(inputs: Sequence[str]) -> list[str]:
    paths = expand(inputs, KINDS)
    for path in paths:
        file_kind(path)
    return paths


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text.strip()) is not None and math.isfinite(float(text))


def _label_kind(label: Any) -> str:
    if label is None:
        return "none"
    if isinstance(label, bool):
        return "string"
    if _WHOLE_NUMBER.fullmatch(str(label)):
        return "int"
    return "float" if _is_number(str(label)) else "string"


def _label_type(kinds: set[str]) -> pa.DataType:
    kinds = kinds - {"none"}
    if not kinds:
        return pa.null()
    if "string" in kinds:
        return pa.string()
    return pa.float64() if "float" in kinds else pa.int64()
