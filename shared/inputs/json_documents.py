"""A JSON file that is one object: a table by columns, as written by pandas, or an object with a list of rows."""

from __future__ import annotations

import codecs
import json
from typing import Any

from shared.errors import InputError
from shared.inputs.table_files import open_as_utf8

MAX_DOCUMENT_BYTES = 1 << 28


def document_rows(path: str, encoding: str = "utf-8") -> list[Any] | None:
    """The rows of a file that is one object; None for one object per line. Raises InputError if it is too large.

    By columns: {"text": {"0": ..., "1": ...}, ...} or {"text": [..., ...], ...}. By rows: one member is a list of
    objects, and all others are neither lists nor objects. Any other object is a single row.
    """
    with open_as_utf8(path, encoding) as file:
        first = file.readline(MAX_DOCUMENT_BYTES).removeprefix(codecs.BOM_UTF8)
        while first.isspace():
            first = file.readline(MAX_DOCUMENT_BYTES)
        is_whole = _parsed(first) is not None
        rest = file.read(MAX_DOCUMENT_BYTES if not is_whole else 1 << 16)
        if is_whole and rest.strip():
            return None
    loaded = _parsed(first + rest)
    if loaded is None:
        if len(rest) == MAX_DOCUMENT_BYTES and first.strip() == b"{":
            raise InputError(
                f"{path}: one JSON object of more than {MAX_DOCUMENT_BYTES:,} bytes; write one row per line"
            )
        return None
    columns = _by_columns(loaded)
    if columns is not None:
        return columns
    nested = [value for value in loaded.values() if isinstance(value, (list, dict))]
    if (
        len(nested) == 1
        and isinstance(nested[0], list)
        and nested[0]
        and all(isinstance(one, dict) for one in nested[0])
    ):
        return nested[0]
    return None if is_whole else [loaded]


def _parsed(content: bytes) -> dict[str, Any] | None:
    try:
        loaded = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return loaded if isinstance(loaded, dict) else None


def _by_columns(loaded: dict[str, Any]) -> list[Any] | None:
    values = list(loaded.values())
    if not values or not values[0]:
        return None
    if all(isinstance(value, dict) for value in values) and len({tuple(value) for value in values}) == 1:
        return [{name: column[key] for name, column in loaded.items()} for key in values[0]]
    is_nested = not isinstance(values[0], list) or any(isinstance(one, (list, dict)) for one in values[0])
    if not is_nested and all(isinstance(value, list) and len(value) == len(values[0]) for value in values):
        return [dict(zip(loaded, row, strict=True)) for row in zip(*values, strict=True)]
    return None
