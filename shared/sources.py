"""Input files -> rows in order, or quarantine records; two passes over files that are never held in memory.

The first pass counts rows, hashes the files and settles the label's type; the second streams. A row's place decides
its source id and its shard. GLUE TSVs are read as they were written: no quoting, split on line feeds only.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from shared.csv_records import read_csv
from shared.errors import InputError, UsageError
from shared.glue import Task, get_task
from shared.input_files import expand, open_binary, sha256_of
from shared.rows import QuarantinedRow, SourceRow

_RESERVED = {"source_id", "n", "text_a", "text_b", "label", "replaced", "base_a", "base_b", "sites_a", "sites_b"}
_KINDS = {".tsv": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".json": "jsonl", ".parquet": "parquet", ".arrow": "arrow"}
_SHOWN_RAW = 2000
_LONGEST_HEADER = 1 << 24
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


@dataclass(frozen=True, slots=True)
class _Record:
    """A row as read: its cells, or why it could not be read."""

    where: str
    cells: tuple[Any, ...] | None
    reason: str
    raw: str


def open_source(options: InputOptions) -> Source:
    """First pass. Raises InputError and UsageError naming file and column."""
    paths = _expand(options.input)
    task = get_task(options.task) if options.task else None
    columns, types = _header(paths, task)
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
    for position, record in enumerate(_records([path for path, _ in source.files], task, source.columns)):
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
    position: int, record: _Record, source: Source, options: InputOptions, task: Task | None
) -> SourceRow | QuarantinedRow:
    def refuse(reason: str) -> QuarantinedRow:
        return QuarantinedRow(position, record.where, reason, record.raw[:_SHOWN_RAW])

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


def _records(paths: Iterable[str], task: Task | None, columns: Sequence[str]) -> Iterator[_Record]:
    for path in paths:
        kind = _kind(path)
        if kind == "tsv":
            yield from _tsv(path, task is None or task.has_header, len(columns))
        elif kind == "csv":
            yield from _csv(path, len(columns))
        elif kind == "jsonl":
            yield from _jsonl(path, columns)
        else:
            yield from _arrow(path, kind, columns)


def _tsv(path: str, has_header: bool, width: int) -> Iterator[_Record]:
    with open_binary(path) as file:
        for number, line in enumerate(file, start=1):
            if number == 1 and has_header:
                continue
            where = f"{path} line {number}"
            content = line.removesuffix(b"\n").removesuffix(b"\r")
            if number == 1:
                content = content.removeprefix(b"\xef\xbb\xbf")
            if not content:
                yield _Record(where, None, "empty line", "")
                continue
            try:
                cells = content.decode("utf-8").split("\t")
            except UnicodeDecodeError as error:
                yield _Record(where, None, f"no UTF-8: {error.reason} at byte {error.start}", _shown(content))
                continue
            if len(cells) != width:
                yield _Record(where, None, f"{len(cells)} columns, {width} expected", _shown(content))
                continue
            yield _Record(where, tuple(cells), "", content.decode("utf-8"))


def _csv(path: str, width: int) -> Iterator[_Record]:
    with open_binary(path) as binary:
        text = io.TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape", newline="")
        for number, record in enumerate(read_csv(text)):
            if number == 0:
                continue
            where = f"{path} line {record.number}"
            raw = record.raw.encode("utf-8", "surrogateescape")
            try:
                raw.decode("utf-8")
            except UnicodeDecodeError:
                yield _Record(where, None, "no UTF-8", _shown(raw))
                continue
            if record.cells is not None and len(record.cells) != width:
                reason = f"{len(record.cells)} columns, the header has {width}"
                yield _Record(where, None, reason, record.raw)
                continue
            yield _Record(where, record.cells, record.reason, record.raw)


def _jsonl(path: str, columns: Sequence[str]) -> Iterator[_Record]:
    with open_binary(path) as file:
        for number, line in enumerate(file, start=1):
            where = f"{path} line {number}"
            if not line.strip():
                continue
            try:
                loaded = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield _Record(where, None, f"no JSON: {error}", _shown(line))
                continue
            if not isinstance(loaded, dict):
                yield _Record(where, None, "no JSON object", _shown(line))
                continue
            yield _Record(where, tuple(_plain(loaded.get(name)) for name in columns), "", _shown(line))


def _arrow(path: str, kind: str, columns: Sequence[str]) -> Iterator[_Record]:
    position = 0
    for batch in _arrow_batches(path, kind):
        for cells in zip(*(batch.column(name).to_pylist() for name in columns), strict=True):
            yield _Record(f"{path} row {position}", cells, "", str(cells))
            position += 1


def _arrow_batches(path: str, kind: str) -> Iterator[pa.RecordBatch]:
    try:
        if kind == "parquet":
            import pyarrow.parquet as pq

            with open_binary(path) as file:
                yield from pq.ParquetFile(file).iter_batches(batch_size=4096)
            return
        with pa.PythonFile(open_binary(path), mode="r") if "://" in path else pa.memory_map(path) as mapped:
            try:
                reader = pa.ipc.open_file(mapped)
                yield from (reader.get_batch(index) for index in range(reader.num_record_batches))
            except pa.ArrowInvalid:
                mapped.seek(0)
                yield from pa.ipc.open_stream(mapped)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: {str(error).splitlines()[0]}") from error


def _header(paths: Sequence[str], task: Task | None) -> tuple[tuple[str, ...], list[pa.DataType] | None]:
    """Column names, and types where the format has them. Raises InputError when files disagree."""
    first: tuple[tuple[str, ...], list[pa.DataType] | None] | None = None
    for path in paths:
        found = _header_of(path, task)
        if first is None:
            first = found
        elif found != first:
            here, there = _columns_text(*found), _columns_text(*first)
            raise InputError(f"{path}: columns {here}; {paths[0]} has {there}")
    assert first is not None
    return first


def _columns_text(names: Sequence[str], types: Sequence[pa.DataType] | None) -> str:
    return ", ".join([f"{name} ({kind})" for name, kind in zip(names, types, strict=True)] if types else names)


def _header_of(path: str, task: Task | None) -> tuple[tuple[str, ...], list[pa.DataType] | None]:
    kind = _kind(path)
    if kind in ("tsv", "csv", "jsonl"):
        with open_binary(path) as file:
            line = file.readline(_LONGEST_HEADER)
        _check_text(path, line)
        if kind == "jsonl":
            return _jsonl_columns(path), None
        if kind == "csv":
            names = _csv_header(path)
        else:
            names = line.decode("utf-8-sig", "replace").rstrip("\r\n").split("\t")
            if task is not None and not task.has_header:
                names = [f"column_{index}" for index in range(len(names))]
        if len(set(names)) != len(names):
            names = [f"{name}_{index}" if names.count(name) > 1 else name for index, name in enumerate(names)]
        return tuple(names), None
    for batch in _arrow_batches(path, kind):
        if len(set(batch.schema.names)) != len(batch.schema.names):
            raise InputError(f"{path}: two of its columns have one name ({', '.join(batch.schema.names)})")
        return tuple(batch.schema.names), list(batch.schema.types)
    raise InputError(f"{path} holds no rows")


def _check_text(path: str, line: bytes) -> None:
    """Whether a first line is one of a text file as we read them. Raises InputError."""
    if not line.strip():
        raise InputError(f"{path} is empty, or its first line is")
    if line[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\x00" in line:
        raise InputError(f"{path} is UTF-16 or no text: save it as UTF-8 (iconv -f UTF-16 -t UTF-8)")
    if len(line) == _LONGEST_HEADER:
        raise InputError(f"{path}: its first line is longer than {_LONGEST_HEADER:,} bytes: is it a table?")
    if _kind(path) == "tsv" and not line.endswith(b"\n") and b"\r" in line.rstrip(b"\r\n"):
        raise InputError(f"{path}: its lines end in carriage returns alone; write line feeds (tr '\\r' '\\n')")


def _csv_header(path: str) -> list[str]:
    with open_binary(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="")
        header = next(read_csv(text), None)
    if header is None or header.cells is None:
        raise InputError(f"{path} line 1: {header.reason if header else 'no header'}")
    return list(header.cells)


def _jsonl_columns(path: str) -> tuple[str, ...]:
    """Every name of every object: a column that a late line brings travels, too."""
    names: dict[str, None] = {}
    with open_binary(path) as file:
        for line in file:
            try:
                loaded = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(loaded, dict):
                names |= dict.fromkeys(loaded)
    if not names:
        raise InputError(f"{path}: no line holds a JSON object")
    return tuple(names)


def _column(name: str, columns: Sequence[str], flag: str) -> int:
    if name in columns:
        return columns.index(name)
    if name.isdigit() and int(name) < len(columns):
        return int(name)
    raise InputError(f"{flag} {name}: the input has the columns {', '.join(columns)} (0 to {len(columns) - 1})")


def _check_width(path: str, task: Task, columns: Sequence[str]) -> None:
    if _kind(path) != "tsv":
        raise UsageError(f"{path}: --task {task.name} knows the columns of GLUE's TSV only; add --text-column")
    if len(columns) <= max(task.text_columns):
        raise InputError(
            f"{path} line 1: {len(columns)} columns, --task {task.name} needs {task.num_columns}. Check the delimiter, "
            "or name the columns with --text-column."
        )


def _expand(inputs: Sequence[str]) -> list[str]:
    paths = expand(inputs, _KINDS)
    for path in paths:
        _kind(path)
    return paths


def _kind(path: str) -> str:
    kind = _KINDS.get(Path(path).suffix.lower())
    if kind is None:
        raise InputError(f"{path}: unknown kind of file; known are {', '.join(_KINDS)}")
    return kind


def _shown(raw: bytes) -> str:
    return raw[:_SHOWN_RAW].decode("utf-8", "backslashreplace").rstrip("\r\n")


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (str, int, float)) else json.dumps(value, ensure_ascii=False)


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
