"""Parquet and Arrow files -> records. Dates and times stay the integers that they are, so all of them travel."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from shared.errors import InputError
from shared.inputs.records import Record
from shared.inputs.table_files import open_seekable


class _Unreadable:
    def __init__(self, reason: str) -> None:
        self.reason = reason


def arrow_batches(path: str, kind: str) -> Iterator[pa.RecordBatch]:
    """Record batches of a Parquet file, or of an Arrow file or stream. Raises InputError."""
    try:
        if kind == "parquet":
            import pyarrow.parquet as pq

            with open_seekable(path) as file:
                yield from pq.ParquetFile(file).iter_batches(batch_size=4096)
            return
        is_local = "://" not in path and path.lower().endswith(".arrow")
        with pa.memory_map(path) if is_local else pa.PythonFile(open_seekable(path), mode="r") as opened:
            try:
                reader = pa.ipc.open_file(opened)
                yield from (reader.get_batch(index) for index in range(reader.num_record_batches))
            except pa.ArrowInvalid:
                opened.seek(0)
                yield from pa.ipc.open_stream(opened)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: {str(error).splitlines()[0]}") from error


def arrow_records(path: str, kind: str, columns: Sequence[str], types: Sequence[pa.DataType]) -> Iterator[Record]:
    """Every row, with one cell a column; null in the columns that the file lacks. Raises InputError."""
    position = 0
    for batch in arrow_batches(path, kind):
        names = set(batch.schema.names)
        absent = [None] * batch.num_rows
        lists = [
            _cells(batch.column(name), type_) if name in names else (absent, False)
            for name, type_ in zip(columns, types, strict=True)
        ]
        damaged = any(is_damaged for _, is_damaged in lists)
        for cells in zip(*(values for values, _ in lists), strict=True):
            bad = [index for index, cell in enumerate(cells) if isinstance(cell, _Unreadable)] if damaged else []
            if bad:
                reason = f"column {columns[bad[0]]}: {cells[bad[0]].reason}"
                yield Record(path, "row", position, None, reason, "")
            else:
                yield Record(path, "row", position, cells, "", None)
            position += 1


def class_names(schema: pa.Schema, column: str) -> tuple[str, ...]:
    """The names of a ClassLabel column's integers, which the `datasets` library writes into the schema's metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return ()
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()


def _cells(column: pa.Array, wanted: pa.DataType) -> tuple[list[Any], bool]:
    """Values of a column, for an array of the wanted type, and whether one of them is _Unreadable."""
    if column.type != wanted and pa.types.is_temporal(wanted):
        try:
            column = column.cast(wanted)
        except pa.ArrowException as error:
            return [_Unreadable(str(error).splitlines()[0][:200])] * len(column), True
    if pa.types.is_temporal(column.type) and not pa.types.is_interval(column.type):
        column = column.view(pa.int32() if column.type.bit_width == 32 else pa.int64())
    try:
        return column.to_pylist(), False
    except (ValueError, OverflowError, pa.ArrowException):
        return [_cell(value) for value in column], True


def _cell(value: pa.Scalar) -> Any:
    try:
        return value.as_py()
    except (ValueError, OverflowError, pa.ArrowException) as error:
        return _Unreadable(str(error).splitlines()[0][:200])
