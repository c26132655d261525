"""Files of each kind -> records in order: the cells as they are in the file, or why a record cannot be read.

TSV files are read as GLUE writes them: without quoting, lines split on line feeds only. Text files start with a header
of names; Parquet and Arrow files have types as well.
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
"""Bytes of a record that are kept when it is quarantined."""


@dataclass(frozen=True, slots=True)
class Record:
    """A row as read: its cells, or why it could not be read."""

    where: str
    cells: tuple[Any, ...] | None
    reason: str
    raw: str


def file_kind(path: str) -> str:
    """The kind of a file, by its suffix. Raises InputError for an unknown one."""
    kind = KINDS.get(Path(path).suffix.lower())
    if kind is None:
        raise InputError(f"{path}: unknown type of file; known types are {', '.join(KINDS)}")
    return kind


def read_records(paths: Iterable[str], task: Task | None, columns: Sequence[str]) -> Iterator[Record]:
    """Every record of the files in order, with one cell per column. Raises InputError for an unreadable file."""
    for path in paths:
        kind = file_kind(path)
        if kind == "tsv":
            yield from _tsv(path, task, len(columns))
        elif kind == "csv":
            yield from _csv(path, len(columns))
        elif kind == "jsonl":
            yield from _jsonl(path, columns)
        else:
            yield from _arrow(path, kind, columns)


def _tsv(path: str, task: Task | None, width: int) -> Iterator[Record]:
    with open_binary(path) as file:
        for number, line in enumerate(file, start=1):
            if number == 1 and (task is None or task.is_header(_first_cells(line))):
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
                yield Record(where, None, f"not UTF-8: {error.reason} at byte {error.start}", _shown(content))
                continue
            if len(cells) != width:
                yield Record(where, None, f"{len(cells)} columns, {width} expected", _shown(content))
                continue
            yield Record(where, tuple(cells), "", content.decode("utf-8"))


def _first_cells(line: bytes) -> list[str]:
    return line.decode("utf-8-sig", "replace").rstrip("\r\n").split("\t")


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
                yield Record(where, None, "not UTF-8", _shown(raw))
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
                yield Record(where, None, f"not valid JSON: {error}", _shown(line))
                continue
            if not isinstance(loaded, dict):
                yield Record(where, None, "not a JSON object", _shown(line))
                continue
            yield Record(where, tuple(_plain(loaded.get(name)) for name in columns), "", _shown(line))


def _arrow(path: str, kind: str, columns: Sequence[str]) -> Iterator[Record]:
    position = 0
    for batch in arrow_batches(path, kind):
        for cells in zip(*(batch.column(name).to_pylist() for name in columns), strict=True):
            yield Record(f"{path} row {position}", cells, "", str(cells))
            position += 1


def arrow_batches(path: str, kind: str) -> Iterator[pa.RecordBatch]:
    """Record batches of a Parquet file, or of an Arrow file or stream. Raises InputError."""
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


def _shown(raw: bytes) -> str:
    return raw[:SHOWN_RAW].decode("utf-8", "backslashreplace").rstrip("\r\n")


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (str, int, float)) else json.dumps(value, ensure_ascii=False)
