"""Parquet and Arrow files -> records. Pass-through columns stay Arrow, so every value stays exact."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pyarrow as pa

from shared.errors import InputError
from shared.inputs.arrow_cells import BLOCK_ROWS, ArrowBlock, cast
from shared.inputs.records import Record
from shared.inputs.table_files import check_is_table, open_seekable, open_table
from shared.storage.foreign_files import START_BYTES


class _Unreadable:
    def __init__(self, reason: str) -> None:
        self.reason = reason


def arrow_batches(path: str, kind: str) -> Iterator[pa.RecordBatch]:
    """Record batches of a Parquet file, or of an Arrow file or stream. Raises InputError."""
    try:
        for batch in _batches(path, kind):
            _ = batch.schema.names  # fails here, not where they are used, on names that are not UTF-8
            yield batch
    except (MemoryError, OverflowError) as error:
        raise InputError(f"{path} is damaged, or needs more memory than is available: {error}") from error
    except (pa.ArrowException, OSError, ValueError) as error:
        with open_table(path) as file:
            start = file.read(START_BYTES)
        if not start.startswith(b"PAR1" if kind == "parquet" else b"ARROW1"):
            check_is_table(path, start)
        raise InputError(f"{path}: {(str(error).splitlines() or [type(error).__name__])[0]}") from error


def _batches(path: str, kind: str) -> Iterator[pa.RecordBatch]:
    if kind == "parquet":
        import pyarrow.parquet as pq

        with open_seekable(path) as file:
            yield from pq.ParquetFile(file).iter_batches(batch_size=4096)
        return
    is_local = "://" not in path and path.lower().endswith(".arrow")
    with pa.memory_map(path) if is_local else pa.PythonFile(open_seekable(path), mode="r") as opened:
        try:
            reader = pa.ipc.open_file(opened)
        except pa.ArrowInvalid:
            opened.seek(0)
            yield from pa.ipc.open_stream(opened)
            return
        yield from (reader.get_batch(index) for index in range(reader.num_record_batches))


def arrow_records(
    path: str, kind: str, columns: Sequence[str], types: Sequence[pa.DataType], copied: Collection[str] = ()
) -> Iterator[Record]:
    """Every row, with one cell per column, null for columns that the file lacks. Raises InputError.

    Cells of the `copied` columns are Arrow cells, all others Python values.
    """
    position = 0
    for batch in arrow_batches(path, kind):
        for start in range(0, batch.num_rows, BLOCK_ROWS):
            block = batch.slice(start, BLOCK_ROWS)
            names = set(block.schema.names)
            lists = [
                _cells(block.column(name), type_, name in copied) if name in names else [None] * block.num_rows
                for name, type_ in zip(columns, types, strict=True)
            ]
            for cells in zip(*lists, strict=True):
                bad = next((index for index, cell in enumerate(cells) if isinstance(cell, _Unreadable)), None)
                if bad is None:
                    yield Record(path, "row", position, cells, "", None)
                else:
                    yield Record(path, "row", position, None, f"column {columns[bad]}: {cells[bad].reason}", "")
                position += 1


def class_names(schema: pa.Schema, column: str) -> tuple[str, ...]:
    """The class names of a column of ClassLabel integers, or of lists of them.

    The `datasets` library stores them in the schema's metadata.
    """
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        feature = features[column]
        # Lists have been serialised in two ways.
        feature = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
        names = feature["names"]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return ()
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()


def _cells(column: pa.Array, wanted: pa.DataType, is_copied: bool) -> Sequence[Any]:
    """The cells of a column; _Unreadable for a damaged cell, or one that does not fit the wanted type."""
    try:
        column.validate(full=True)
        if not is_copied:
            return list(column.to_pylist())
        return ArrowBlock(cast(column, wanted)).cells()
    except (ValueError, OverflowError, pa.ArrowException) as error:
        if len(column) == 1:
            return [_Unreadable(str(error).splitlines()[0][:200])]
        return [_cells(column.slice(index, 1), wanted, is_copied)[0] for index in range(len(column))]
