"""The type of a label column whose file format has none: int64, float64 or string, whichever fits every label."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pyarrow as pa

_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?", re.ASCII)


def is_whole_number(value: Any) -> bool:
    """Whether a cell is an integer of at most 18 digits, which int64 can hold."""
    return not isinstance(value, bool) and _WHOLE_NUMBER.fullmatch(str(value)) is not None


def is_number(text: str) -> bool:
    """Whether a text is a finite decimal number."""
    return _NUMBER.fullmatch(text.strip()) is not None and math.isfinite(float(text))


def type_of_label(label: Any) -> pa.DataType:
    """The narrowest type that can hold one label; null for None."""
    if label is None:
        return pa.null()
    if isinstance(label, bool):
        return pa.string()
    if is_whole_number(label):
        return pa.int64()
    return pa.float64() if is_number(str(label)) else pa.string()


def common_type(types: set[pa.DataType]) -> pa.DataType:
    """The narrowest type that can hold labels of all of these types."""
    for wide in (pa.string(), pa.float64(), pa.int64()):
        if wide in types:
            return wide
    return pa.null()


def convert_label(label: Any, label_type: pa.DataType) -> Any:
    """A label as a value of its column's type."""
    if isinstance(label, str) and pa.types.is_int64(label_type):
        return int(label)
    if isinstance(label, (str, int)) and pa.types.is_float64(label_type):
        return float(label)
    if label is not None and pa.types.is_string(label_type) and not isinstance(label, str):
        return json.dumps(label, ensure_ascii=False)
    return label
