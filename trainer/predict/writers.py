"""Rows with their predictions -> a CSV, TSV, JSON-lines or Parquet file, which appears only when it is complete."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import pyarrow as pa

from shared.errors import InputError, UsageError
from shared.inputs.arrow_cells import parquet_error, python_values, to_array

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


class TableWriter(Protocol):
    """Takes tables of one schema, in order."""

    def write(self, table: pa.Table) -> None:
        """Append rows."""
        ...

    def close(self) -> None:
        """Finish the file."""
        ...


def open_writer(kind: str, path: Path, schema: pa.Schema) -> TableWriter:
    """The writer for a suffix."""
    if kind == ".parquet":
        return _Parquet(path, schema)
    if kind == ".jsonl":
        return _JsonLines(path)
    return _Delimited(path, schema.names, "," if kind == ".csv" else "\t")


def check_suffix(output: str) -> str:
    """The suffix of --output, a path or URI. Raises UsageError for an unknown one."""
    suffix = PurePosixPath(output).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"--output {output}: its name must end in {', '.join(SUFFIXES)}")
    return suffix


def as_table(schema: pa.Schema, columns: Sequence[Sequence[Any]]) -> pa.Table:
    """Columns in the order of the schema. Raises InputError for a cell that its column cannot hold."""
    arrays = []
    for field, cells in zip(schema, columns, strict=True):
        try:
            arrays.append(to_array(cells, field.type))
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise InputError(f"column {field.name}: {str(error).splitlines()[0]}") from error
    return pa.Table.from_arrays(arrays, schema=schema)


class _Parquet:
    def __init__(self, path: Path, schema: pa.Schema) -> None:
        import pyarrow.parquet as pq

        try:
            self._writer = pq.ParquetWriter(path, schema)
        except pa.ArrowException as error:
            raise parquet_error(error, schema) from error

    def write(self, table: pa.Table) -> None:
        try:
            self._writer.write_table(table)
        except pa.ArrowException as error:
            raise parquet_error(error, table.schema) from error

    def close(self) -> None:
        self._writer.close()


class _JsonLines:
    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="\n")

    def write(self, table: pa.Table) -> None:
        names = table.schema.names
        columns = [python_values(column, name) for name, column in zip(names, table.columns, strict=True)]
        for row in zip(*columns, strict=True):
            cells = dict(zip(names, row, strict=True))
            self._file.write(json.dumps(cells, ensure_ascii=False, default=_plain) + "\n")

    def close(self) -> None:
        self._file.close()


class _Delimited:
    def __init__(self, path: Path, names: Sequence[str], delimiter: str) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file, delimiter=delimiter, lineterminator="\n")
        self._writer.writerow(names)

    def write(self, table: pa.Table) -> None:
        columns = [
            map(_cell, python_values(column, name))
            for name, column in zip(table.schema.names, table.columns, strict=True)
        ]
        self._writer.writerows(zip(*columns, strict=True))

    def close(self) -> None:
        self._file.close()


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=_plain)
    if isinstance(value, bytes):
        return _plain(value)
    return "" if value is None else value


def _plain(value: Any) -> Any:
    """Values that JSON cannot represent: bytes as hexadecimal digits, dates and decimals as text."""
    return value.hex() if isinstance(value, bytes) else str(value)
