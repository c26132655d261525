"""Cells of columns that are only copied: they stay Arrow from file to shard, so every value stays exact."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from shared.errors import InputError

BLOCK_ROWS = 256
"""Rows whose cells are kept together: small, because a block is sent to a worker as a whole."""


class ArrowBlock:
    """Consecutive cells of one column, apart from the file's memory. digest: of their content."""

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
    """A cell: its block, and its place there."""

    __slots__ = ("block", "index")

    def __init__(self, block: ArrowBlock, index: int) -> None:
        self.block, self.index = block, index

    def __repr__(self) -> str:
        try:
            return repr(self.block.array[self.index].as_py())
        except (ValueError, OverflowError, NotImplementedError, pa.ArrowException):
            return f"<{self.block.array.type}>"

    def identity(self) -> tuple[bytes, int]:
        """Equal for equal cells of two readings of the same file."""
        return self.block.digest, self.index


def to_array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """The cells of a column, Arrow cells and Python values, as one array of the type."""
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
    """About the bytes of a cell, Arrow cell or Python value, in an array of its own."""
    if isinstance(value, ArrowCell):
        return int(value.block.array.slice(value.index, 1).nbytes)
    if isinstance(value, (list, tuple)):
        return sum(map(bytes_of_cell, value))
    if isinstance(value, bytes):
        return len(value)
    return len(value.encode("utf-8", "surrogatepass")) if isinstance(value, str) else 8


def has_32_bit_offsets(kind: pa.DataType) -> bool:
    """Whether an array of a type that can be copied counts bytes in 32 bits, which 2 GiB exceed."""
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind))


def cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """The values as another type, also from encodings that Arrow's `cast` does not know. Raises pa.ArrowException."""
    if array.type == kind:
        return array
    if pa.types.is_dictionary(array.type) and not pa.types.is_dictionary(kind):
        array = pa.DictionaryArray.from_arrays(array.indices, cast(array.dictionary, kind)).dictionary_decode()
    try:
        return array.cast(kind)
    except pa.ArrowNotImplementedError:
        return pa.array(array.to_pylist(), kind)


def take(array: pa.Array, index: pa.Array) -> pa.Array:
    """The cells at these places, also of types that Arrow's `take` does not know."""
    try:
        return array.take(index)
    except pa.ArrowNotImplementedError:
        return pa.concat_arrays([array.slice(place, 1) for place in index.to_pylist()])


def python_values(column: pa.Array | pa.ChunkedArray, name: str) -> list[Any]:
    """The cells for a text file; those that Python has no value for, such as far dates, as text. Raises InputError."""
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError, pa.ArrowException):
        pass
    try:
        return list(column.cast(pa.string()).to_pylist())
    except (ValueError, OverflowError, pa.ArrowException) as error:
        raise InputError(
            f"column {name}: its values of type {column.type} cannot be written as text ({_first_line(error)}); write "
            "Parquet, or leave the column out of the input"
        ) from error


def parquet_error(error: pa.ArrowException, schema: pa.Schema) -> InputError:
    """A type or value that Parquet cannot hold, naming the columns that are not of everyday types."""
    plain = (
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_boolean,
        pa.types.is_string,
        pa.types.is_large_string,
    )
    suspects = [f"{one.name} ({one.type})" for one in schema if not any(test(one.type) for test in plain)]
    return InputError(
        f"Parquet cannot hold the columns ({_first_line(error)}), one of {', '.join(suspects)[:400]}; write JSON "
        "lines, or leave the column out of the input"
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
            f"column {field.name}: its type {field.type} cannot be copied into shards ({str(error).splitlines()[0]}); "
            "leave the column out of the input"
        ) from error


def _follows(value: Any, first: ArrowCell, distance: int) -> bool:
    return isinstance(value, ArrowCell) and value.block is first.block and value.index == first.index + distance
