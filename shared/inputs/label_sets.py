"""Several labels per row (multi-label): a list, a text that names them, or one column of 0 and 1 for each label.

A row without any label is valid: an empty list, an empty text, or 0 in every column. A missing value (null, NaN) is
not, because its labels are unknown.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from typing import Any

from shared.inputs.labels import is_missing, label_text, whole_number

_YES, _NO = ("1", "true", "yes"), ("0", "false", "no")
_FLAGS = {*_YES, *_NO}
_RUN_TOGETHER = re.compile(r"""['"]\s+['"]""")


class LabelSetError(ValueError):
    """Why the labels of a row cannot be read."""


def labels_of_cell(cell: Any, names: Sequence[str], separator: str) -> list[str]:
    """The labels of a cell: a list, a text that contains a list, or label names separated by `separator`.

    names: the names of integer labels, if the file has them. Raises LabelSetError.
    """
    if isinstance(cell, str):
        cell = _list_in(cell, separator)
    elif not isinstance(cell, list | tuple):
        cell = [cell]
    found = [_label(one, names) for one in cell]
    if len(set(found)) < len(found) and {one.lower() for one in found} <= _FLAGS:
        raise LabelSetError("a vector of 0 and 1, not label names; use one column per label (--multi-label)")
    return list(dict.fromkeys(found))


def labels_of_columns(cells: Sequence[Any], names: Sequence[str]) -> list[str]:
    """The names of the columns whose cell is 1, true or yes. Raises LabelSetError for any other cell except 0."""
    found = []
    for cell, name in zip(cells, names, strict=True):
        if is_missing(cell):
            raise LabelSetError(f"column {name}: the label is missing")
        text = label_text(cell).strip().lower()
        if text in _YES:
            found.append(name)
        elif text not in _NO:
            raise LabelSetError(f"column {name}: {str(cell)[:40]!r} is not 0 or 1 (--multi-label)")
    return found


def _list_in(text: str, separator: str) -> Sequence[Any]:
    """The list in a text, in JSON or as printed by Python, else its separated parts. Raises LabelSetError."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return [part.strip() for part in text.split(separator) if part.strip()]
    # Python would join two strings without a comma, as printed by numpy, into one.
    if not _RUN_TOGETHER.search(text):
        for read in (json.loads, ast.literal_eval):
            try:
                found: Any = read(text)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
            if isinstance(found, list):
                return found
    raise LabelSetError(f"{text[:40]!r} is not a list of labels: write it as JSON, or without brackets")


def _label(item: Any, names: Sequence[str]) -> str:
    if is_missing(item):
        raise LabelSetError("a label in the list is missing")
    if isinstance(item, list | tuple | dict):
        raise LabelSetError(f"a label in the list is neither text nor a number: {str(item)[:40]}")
    number = whole_number(item) if names and isinstance(item, int) else None
    if number is None:
        return label_text(item)
    if not 0 <= number < len(names):
        raise LabelSetError(f"label {number} in the list is not the index of a class")
    return names[number]
