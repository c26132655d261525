"""JSON -> records: one object per line, or objects with any line breaks, in an array or concatenated as by `jq`. Values
keep their types."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from shared.errors import InputError
from shared.inputs.arrow_cells import ArrowCell
from shared.inputs.json_documents import document_rows
from shared.inputs.records import Record
from shared.inputs.table_files import open_as_utf8

_BLOCK = 1 << 20
_SPACE = " \t\r\n"


def json_records(path: str, columns: Sequence[str] | None, encoding: str = "utf-8") -> Iterator[Record]:
    """Every row of a file. cells: the values of `columns`, or one cell with the whole object. Raises InputError."""
    place, values = _values(path, encoding)
    for number, loaded, raw in values:
        if isinstance(loaded, _Broken):
            yield Record(path, place, number, None, loaded.reason, raw)
        elif not isinstance(loaded, dict):
            yield Record(path, place, number, None, "not a JSON object", raw)
        else:
            yield Record(path, place, number, [loaded] if columns is None else [*map(loaded.get, columns)], "", raw)


def json_types(path: str, encoding: str = "utf-8") -> dict[str, set[str]]:
    """The columns of all rows, and the kinds of their values. Raises InputError."""
    kinds: dict[str, set[str]] = {}
    for record in json_records(path, None, encoding):
        if record.cells is not None:
            for name, value in record.cells[0].items():
                kinds.setdefault(name, set()).add(_kind(value))
    return kinds


def json_type(kinds: set[str]) -> pa.DataType:
    """The type of a column with values of these kinds: string if they have nothing else in common."""
    for type_, members in (
        (pa.bool_(), {"bool"}),
        (pa.int64(), {"int", "long"}),
        (pa.float64(), {"int", "float"}),
    ):
        if kinds - {"null"} and kinds - {"null"} <= members:
            return type_
    return pa.string()


def as_type(value: Any, kind: pa.DataType) -> Any:
    """A JSON value for a column of this type; in a string column, non-text values become JSON text."""
    if value is None or not pa.types.is_string(kind) or isinstance(value, (str, ArrowCell)):
        return value
    return json.dumps(value, ensure_ascii=False)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        if abs(value) <= 2**53:
            return "int"
        return "long" if -(2**63) <= value < 2**63 else "endless"
    if isinstance(value, float):
        return "float"
    return "text" if isinstance(value, str) else "nested"


class _Broken:
    def __init__(self, reason: str) -> None:
        self.reason = reason


def _values(path: str, encoding: str) -> tuple[str, Iterator[tuple[int, Any, bytes | str | None]]]:
    """The unit that numbers count, and each value with its number and source text."""
    if _is_array(path, encoding):
        return "row", _array(path, encoding)
    rows = document_rows(path, encoding)
    if rows is not None:
        return "row", ((number, row, None) for number, row in enumerate(rows))
    if _is_stream(path, encoding):
        return "row", _array(path, encoding, is_stream=True)
    return "line", _lines(path, encoding)


def _is_array(path: str, encoding: str) -> bool:
    with open_as_utf8(path, encoding) as file:
        while block := file.read(_BLOCK):
            if content := block.removeprefix(codecs.BOM_UTF8).strip():
                return content.startswith(b"[")
    return False


def _is_stream(path: str, encoding: str) -> bool:
    """Whether the first object is not on a separate line, and another follows it."""
    with open_as_utf8(path, encoding) as file:
        text = file.read(_BLOCK).removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace").lstrip()
    try:
        first, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    is_line = text[end:].lstrip(" \t\r").startswith("\n") and "\n" not in text[:end]
    return isinstance(first, dict) and not is_line and text[end:].lstrip().startswith("{")


def _lines(path: str, encoding: str) -> Iterator[tuple[int, Any, bytes]]:
    with open_as_utf8(path, encoding) as file:
        for number, line in enumerate(file, start=1):
            content = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if not content.strip():
                continue
            try:
                yield number, json.loads(content), line
            except UnicodeDecodeError as error:
                hint = "set another encoding with --encoding, such as cp1252"
                yield number, _Broken(f"not UTF-8: {error.reason} at byte {error.start}; {hint}"), line
            except (ValueError, RecursionError) as error:
                yield number, _Broken(f"not valid JSON: {error}"), line


def _array(path: str, encoding: str, *, is_stream: bool = False) -> Iterator[tuple[int, Any, str]]:
    """The elements of an array, or of a stream of concatenated values.

    After invalid JSON the next element cannot be found: raises InputError.
    """
    decoder = json.JSONDecoder()
    with open_as_utf8(path, encoding) as file:
        decode = codecs.getincrementaldecoder("utf-8-sig")()
        text, at, number, at_end = "", 0, 0, False

        def more(size: int = _BLOCK) -> None:
            nonlocal text, at, at_end
            block = file.read(size)
            at_end = not block
            text, at = text[at:] + decode.decode(block, at_end), 0

        def next_mark() -> str:
            nonlocal at
            while True:
                while at < len(text) and text[at] in _SPACE:
                    at += 1
                if at < len(text) or at_end:
                    return text[at : at + 1]
                more()

        try:
            next_mark()
            at += not is_stream
            while next_mark() != ("" if is_stream else "]"):
                while True:
                    try:
                        value, end = decoder.raw_decode(text, at)
                        # A number or a word may continue in the next block.
                        if end < len(text) or at_end:
                            break
                    except ValueError:
                        if at_end:
                            raise
                    more(max(_BLOCK, len(text)))
                yield number, value, text[at:end]
                number, at = number + 1, end
                if is_stream:
                    continue
                if (mark := next_mark()) == ",":
                    at += 1
                elif mark != "]":
                    raise ValueError("a comma or ] is missing")
            at += 1
            if next_mark():
                raise ValueError("there is text after the array; write one object per line, or a single array")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}: not UTF-8 after row {number}; set another encoding with --encoding, such as cp1252"
            ) from error
        except (ValueError, RecursionError) as error:
            kind = "sequence of JSON objects" if is_stream else "JSON array"
            raise InputError(f"{path}: not a valid {kind} after row {number}: {error}") from error
