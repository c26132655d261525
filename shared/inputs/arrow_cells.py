"""Cells of pass-through columns: they stay Arrow from file to shard, so every value stays exact."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shared.errors import InputError

Ints = NDArray[np.int64]
BLOCK_ROWS = 256
"""Rows per block of cells: small, because a block is sent to a worker as a whole."""


class ArrowBlock:
    """Consecutive cells of one column, independent of the file's memory. digest: of their content."""

    __slots__ = ("array", "digest")

    def __init__(self, array: pa.Array) -> None:
        batch = pa.record_batch([array], ["cells"])
        content = pa.ipc.new_stream(sink := pa.BufferOutputStream(), batch.schema)
        content.write_batch(batch)
        content.close()
        stream = sink.getvalue()
        self.array: pa.Array = pa.ipc.open_stream(stream).read_next_batch().column(0)
        self.digest = hashlib.blake2b(stream, digest_size=16).digest()

    def cells(self) -> list[ArrowCell]:
        """One for each row."""
        return [ArrowCell(self, index) for index in range(len(self.array))]


class ArrowCell:
    """A cell: its block and its index in it."""

    __slots__ = ("block", "index")

    def __init__(self, block: ArrowBlock, index: int) -> None:
        self.block, self.index = block, index

    def __repr__(self) -> str:
        try:
            return repr(self.block.array[self.index].as_py())
        except (ValueError, OverflowError, NotImplementedError, pa.ArrowException):
            return f"<{self.block.array.type}>"

    def identity(self) -> tuple[bytes, int]:
        """A key that is equal for equal cells in two passes over the same file."""
        return self.block.digest, self.index


def to_array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """The cells of a column, Arrow cells or Python values, as one array of the type."""
    parts: list[pa.Array] = []
    start = 0
    while start < len(values):
        end, first = start + 1, values[start]
        if isinstance(first, ArrowCell):
            while end < len(values) and _follows(values[end], first, end - start):
                end += 1
            parts.append(first.block.array.slice(first.index, end - start))
        else:
            while end < len(values) and not isinstance(values[end], ArrowCell):
                end += 1
            parts.append(pa.array(values[start:end], kind))
        start = end
    return pa.concat_arrays(parts) if parts else pa.array([], kind)


def bytes_of_cell(value: Any) -> int:
    """Approximate bytes of a cell, an Arrow cell or a Python value, in a separate array."""
    if isinstance(value, ArrowCell):
        return int(value.block.array.slice(value.index, 1).nbytes)
    if isinstance(value, (list, tuple)):
        return sum(map(bytes_of_cell, value))
    if isinstance(value, bytes):
        return len(value)
    return len(value.encode("utf-8", "surrogatepass")) if isinstance(value, str) else 8


def has_32_bit_offsets(kind: pa.DataType) -> bool:
    """Whether arrays of this (copyable) type have 32-bit offsets, which overflow at 2 GiB."""
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind))


def cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """The values as another type, including encodings that Arrow's `cast` lacks. Raises pa.ArrowException."""
    if array.type == kind:
        return array
    if pa.types.is_dictionary(array.type) and not pa.types.is_dictionary(kind):
        array = pa.DictionaryArray.from_arrays(array.indices, cast(array.dictionary, kind)).dictionary_decode()
    try:
        return array.cast(kind)
    except pa.ArrowNotImplementedError:
        return pa.array(array.to_pylist(), kind)


def most_counted(array: pa.Array, copies: Ints) -> int:
    """The largest number that an offset would have if the i-th cell was taken copies[i] times.

    An offset counts the values of a list or map, or the bytes of a string, at any depth. Types with 64-bit offsets, and
    what is inside lists of a fixed size, are not counted. copies: (cells,) int64.
    """
    kind = array.type
    if pa.types.is_struct(kind):
        return max([most_counted(child, copies) for child in array.flatten()], default=0)
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return int((_lengths(pc.binary_length(array)) * copies).sum())
    if pa.types.is_map(kind):
        array = array.cast(pa.list_(pa.struct([kind.key_field, kind.item_field])))
    elif not pa.types.is_list(kind):
        return 0
    lengths = _lengths(pc.list_value_length(array))
    total = int((lengths * copies).sum())
    return max(total, most_counted(array.flatten(), np.repeat(copies, lengths)))


def _lengths(found: pa.Array) -> Ints:
    lengths: Ints = found.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return lengths


def take(array: pa.Array, index: pa.Array) -> pa.Array:
    """The cells at these indices, including types that Arrow's `take` lacks."""
    try:
        return array.take(index)
    except pa.ArrowNotImplementedError:
        return pa.concat_arrays([array.slice(place, 1) for place in index.to_pylist()])


def python_values(column: pa.Array | pa.ChunkedArray, name: str) -> list[Any]:
    """The cells for a text file; values that Python cannot represent, such as far dates, as text. Raises InputError."""
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError, pa.ArrowException):
        pass
    try:
        return list(column.cast(pa.string()).to_pylist())
    except (ValueError, OverflowError, pa.ArrowException) as error:
        raise InputError(
            f"column {name}: values of type {column.type} cannot be written as text ({_first_line(error)}); write "
            "Parquet instead, or remove the column from the input"
        ) from error


def parquet_error(error: pa.ArrowException, schema: pa.Schema) -> InputError:
    """The error for a type or value that Parquet cannot hold, naming the columns of uncommon types."""
    plain = (
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_boolean,
        pa.types.is_string,
        pa.types.is_large_string,
    )
    suspects = [f"{one.name} ({one.type})" for one in schema if not any(test(one.type) for test in plain)]
    which = f"{'one of the columns' if len(suspects) > 1 else 'column'} {', '.join(suspects)[:400]}"
    return InputError(
        f"Parquet cannot store {which}: {_first_line(error)}; write JSON Lines instead, or remove the column from the "
        "input"
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def check_can_be_copied(field: pa.Field) -> None:
    """Raises InputError for a type that cannot be written into shards."""
    try:
        cells = ArrowBlock(pa.nulls(2, field.type) if field.nullable else pa.array([], field.type)).cells()
        take(to_array(cells, field.type), pa.array(range(len(cells)), pa.int64()))
    except pa.ArrowException as error:
        raise InputError(
            f"column {field.name}: type {field.type} cannot be copied into shards ({str(error).splitlines()[0]}); "
            "remove the column from the input"
        ) from error


def _follows(value: Any, first: ArrowCell, distance: int) -> bool:
    return isinstance(value, ArrowCell) and value.block is first.block and value.index == first.index + distance
