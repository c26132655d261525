"""Files of each kind -> records in order: the cells as they stand there, or why a record cannot be read.

TSVs are read as GLUE wrote them: no quoting, split on line feeds only. Text files have a header of names; Parquet and
Arrow have types, too.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from shared.errors import InputError
from shared.glue import Task
from shared.inputs.csv_records import read_csv
from shared.storage.input_files import open_binary

KINDS = {".tsv": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".json": "jsonl", ".parquet": "parquet", ".arrow": "arrow"}
SHOWN_RAW = 2000
"""Bytes of a record that are shown where it is refused."""
_LONGEST_HEADER = 1 << 24


@dataclass(frozen=True, slots=True)
class Record:
    """A row as read: its cells, or why it could not be read."""

    where: str
    cells: tuple[Any, ...] | None
    reason: str
    raw: str


def file_kind(path: str) -> str:
    """The kind that the name says. Raises InputError for any other."""
    kind = KINDS.get(Path(path).suffix.lower())
    if kind is None:
        raise InputError(f"{path}: unknown kind of file; known are {', '.join(KINDS)}")
    return kind


def read_header(paths: Sequence[str], task: Task | None) -> tuple[tuple[str, ...], list[pa.DataType] | None]:
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


def read_records(paths: Iterable[str], task: Task | None, columns: Sequence[str]) -> Iterator[Record]:
    """Every record of the files in order, its cells those of `columns`. Raises InputError for an unreadable file."""
    for path in paths:
        kind = file_kind(path)
        if kind == "tsv":
            yield from _tsv(path, task is None or task.has_header, len(columns))
        elif kind == "csv":
            yield from _csv(path, len(columns))
        elif kind == "jsonl":
            yield from _jsonl(path, columns)
        else:
            yield from _arrow(path, kind, columns)


def _tsv(path: str, has_header: bool, width: int) -> Iterator[Record]:
    with open_binary(path) as file:
        for number, line in enumerate(file, start=1):
            if number == 1 and has_header:
                continue
            where = f"{path} line {number}"
            content = line.removesuffix(b"\n").removesuffix(b"\r")
            if number == 1:
                content = content.removeprefix(b"\xef\xbb\xbf")
            if not content:
                yield Record(where, None, "empty line", "")
                continue
            try:
                cells = content.decode("utf-8").split("\t")
            except UnicodeDecodeError as error:
                yield Record(where, None, f"no UTF-8: {error.reason} at byte {error.start}", _shown(content))
                continue
            if len(cells) != width:
                yield Record(where, None, f"{len(cells)} columns, {width} expected", _shown(content))
                continue
            yield Record(where, tuple(cells), "", content.decode("utf-8"))


def _csv(path: str, width: int) -> Iterator[Record]:
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
                yield Record(where, None, "no UTF-8", _shown(raw))
                continue
            if record.cells is not None and len(record.cells) != width:
                reason = f"{len(record.cells)} columns, the header has {width}"
                yield Record(where, None, reason, record.raw)
                continue
            yield Record(where, record.cells, record.reason, record.raw)


def _jsonl(path: str, columns: Sequence[str]) -> Iterator[Record]:
    with open_binary(path) as file:
        for number, line in enumerate(file, start=1):
            where = f"{path} line {number}"
            if not line.strip():
                continue
            try:
                loaded = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield Record(where, None, f"no JSON: {error}", _shown(line))
                continue
            if not isinstance(loaded, dict):
                yield Record(where, None, "no JSON object", _shown(line))
                continue
            yield Record(where, tuple(_plain(loaded.get(name)) for name in columns), "", _shown(line))


def _arrow(path: str, kind: str, columns: Sequence[str]) -> Iterator[Record]:
    position = 0
    for batch in _arrow_batches(path, kind):
        for cells in zip(*(batch.column(name).to_pylist() for name in columns), strict=True):
            yield Record(f"{path} row {position}", cells, "", str(cells))
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


def _columns_text(names: Sequence[str], types: Sequence[pa.DataType] | None) -> str:
    return ", ".join([f"{name} ({kind})" for name, kind in zip(names, types, strict=True)] if types else names)


def _header_of(path: str, task: Task | None) -> tuple[tuple[str, ...], list[pa.DataType] | None]:
    kind = file_kind(path)
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
    if file_kind(path) == "tsv" and not line.endswith(b"\n") and b"\r" in line.rstrip(b"\r\n"):
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


def _shown(raw: bytes) -> str:
    return raw[:SHOWN_RAW].decode("utf-8", "backslashreplace").rstrip("\r\n")


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (str, int, float)) else json.dumps(value, ensure_ascii=False)
