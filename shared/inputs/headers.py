"""Column names of an input file, and their types where the format has them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from shared.errors import InputError
from shared.glue import Task
from shared.inputs.csv_records import read_csv
from shared.inputs.records import arrow_batches, file_kind
from shared.storage.input_files import open_binary

_LONGEST_HEADER = 1 << 24


@dataclass(frozen=True, slots=True)
class Header:
    """Names of the columns; `types` is None for text formats."""

    names: tuple[str, ...]
    types: tuple[pa.DataType, ...] | None = None

    def type_of(self, index: int) -> pa.DataType | None:
        """The type of a column, if the format has one."""
        return self.types[index] if self.types else None

    def __str__(self) -> str:
        if self.types is None:
            return ", ".join(self.names)
        return ", ".join(f"{name} ({kind})" for name, kind in zip(self.names, self.types, strict=True))


def read_header(paths: Sequence[str], task: Task | None) -> Header:
    """The header that all files share. Raises InputError if two files differ or one cannot be read."""
    first = _header_of(paths[0], task)
    for path in paths[1:]:
        if (found := _header_of(path, task)) != first:
            raise InputError(f"{path}: columns {found}; {paths[0]} has {first}")
    return first


def _header_of(path: str, task: Task | None) -> Header:
    kind = file_kind(path)
    if kind in ("parquet", "arrow"):
        return _typed_header(path, kind)
    with open_binary(path) as file:
        line = file.readline(_LONGEST_HEADER)
    _check_first_line(path, line)
    if kind == "jsonl":
        return Header(_jsonl_columns(path))
    names = _csv_header(path) if kind == "csv" else _tsv_header(line, task)
    if len(set(names)) != len(names):
        names = [f"{name}_{index}" if names.count(name) > 1 else name for index, name in enumerate(names)]
    return Header(tuple(names))


def _typed_header(path: str, kind: str) -> Header:
    for batch in arrow_batches(path, kind):
        names = batch.schema.names
        if len(set(names)) != len(names):
            raise InputError(f"{path}: two columns have the same name ({', '.join(names)})")
        return Header(tuple(names), tuple(batch.schema.types))
    raise InputError(f"{path} has no rows")


def _check_first_line(path: str, line: bytes) -> None:
    """Reject files whose first line shows that they are not the text they should be. Raises InputError."""
    if not line.strip():
        raise InputError(f"{path} is empty, or its first line is")
    if line[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\x00" in line:
        raise InputError(f"{path} is UTF-16 or binary: save it as UTF-8 text (iconv -f UTF-16 -t UTF-8)")
    if len(line) == _LONGEST_HEADER:
        raise InputError(f"{path}: its first line is longer than {_LONGEST_HEADER:,} bytes: is it a table?")
    if file_kind(path) == "tsv" and not line.endswith(b"\n") and b"\r" in line.rstrip(b"\r\n"):
        raise InputError(f"{path}: its lines end in carriage returns; convert them to line feeds (tr '\\r' '\\n')")


def _tsv_header(line: bytes, task: Task | None) -> list[str]:
    names = line.decode("utf-8-sig", "replace").rstrip("\r\n").split("\t")
    if task is not None and not task.is_header(names):
        return [f"column_{index}" for index in range(len(names))]
    return names


def _csv_header(path: str) -> list[str]:
    with open_binary(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="")
        header = next(read_csv(text), None)
    if header is None or header.cells is None:
        raise InputError(f"{path} line 1: {header.reason if header else 'the header is missing'}")
    return list(header.cells)


def _jsonl_columns(path: str) -> tuple[str, ...]:
    """The keys of all objects: a column that first appears in a late line is copied along, too."""
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
        raise InputError(f"{path}: no line contains a JSON object")
    return tuple(names)
