"""Types of labels and ids: a cell stays text unless every cell is the canonical spelling of a number.

"01", "1" and "001" are three labels, and so are "5E3" and "5000". Whole numbers written as floats, as in a pandas
column of integers with gaps ("1.0", 1.0), are integers.
"""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from typing import Any

import pyarrow as pa

_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]{0,18}))(\.0)?", re.ASCII)
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?", re.ASCII)
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]*)(?P<point>\.(?:0|[0-9]*[1-9]))?(?:e(?P<exponent>[-+]?[0-9]{1,3}))?", re.ASCII)
_EXACT = 2**53
_INT64 = pa.int64()

WHOLE, LONG, FLOAT, TEXT, SEVERAL = "whole", "long", "float", "text", "several"
"""Kinds of labels. LONG: an integer that float64 cannot hold exactly. SEVERAL: a list of labels."""


def is_missing(cell: Any) -> bool:
    """Whether a cell has no value: null, NaN, or text without a visible character."""
    return (
        cell is None or (isinstance(cell, float) and math.isnan(cell)) or (isinstance(cell, str) and not cell.strip())
    )


def whole_number(cell: Any) -> int | None:
    """The int64 value of a cell that is an integer or its canonical spelling, else None."""
    if isinstance(cell, str) and len(cell) == 1 and "0" <= cell <= "9":
        return int(cell)
    if isinstance(cell, bool):
        return None
    if isinstance(cell, float):
        return int(cell) if cell.is_integer() and abs(cell) <= _EXACT else None
    if isinstance(cell, str):
        match = _WHOLE.fullmatch(cell)
        if match is None or cell.startswith("-0"):
            return None
        cell = int(match[1])
        if match[2] and abs(cell) > _EXACT:
            return None
    return cell if isinstance(cell, int) and -(2**63) <= cell < 2**63 else None


def is_number(text: str) -> bool:
    """Whether a text is a finite decimal number."""
    return _NUMBER.fullmatch(text.strip()) is not None and math.isfinite(float(text))


def _is_plain_float(text: str) -> bool:
    """Whether a text has the digits of its number's shortest spelling, in any common notation."""
    match = _FLOAT.fullmatch(text)
    if match is None or (match["point"] is None and match["exponent"] is None):
        return False
    exponent = match["exponent"]
    if exponent is not None and -4 < int(exponent) < (10 if exponent.startswith("+") else 15):
        return False
    return math.isfinite(float(text)) and Decimal(text) == Decimal(repr(float(text)))


def kind_of_label(label: Any, is_score: bool) -> str | None:
    """The kind of one label; None for None. is_score: every spelling of a number is that number, as in STS-B."""
    if label is None:
        return None
    if isinstance(label, list):
        return SEVERAL
    if is_score:
        return WHOLE if whole_number(label) is not None and "." not in str(label) else FLOAT
    number = whole_number(label)
    if number is not None:
        return WHOLE if abs(number) <= _EXACT else LONG
    if isinstance(label, float):
        return FLOAT
    return FLOAT if isinstance(label, str) and _is_plain_float(label) else TEXT


def common_type(kinds: set[str | None]) -> pa.DataType:
    """The type that holds labels of all these kinds without loss. SEVERAL excludes the others."""
    if SEVERAL in kinds:
        return pa.list_(pa.string())
    if TEXT in kinds or {LONG, FLOAT} <= kinds:
        return pa.string()
    if FLOAT in kinds:
        return pa.float64()
    return pa.int64() if kinds & {WHOLE, LONG} else pa.null()


def convert_label(label: Any, label_type: pa.DataType) -> Any:
    """A label as a value of its column's type."""
    if label is None:
        return None
    if label_type == _INT64:
        return label if type(label) is int else whole_number(label)
    if pa.types.is_float64(label_type):
        return float(label)
    if pa.types.is_string(label_type) and not isinstance(label, str):
        return label_text(label)
    return label


def label_text(label: Any) -> str:
    """A label as text: the integer's digits if it is a whole number."""
    number = whole_number(label)
    if number is not None:
        return str(number)
    if isinstance(label, str):
        return label
    if isinstance(label, bytes):
        return label.decode("utf-8", "backslashreplace")
    if isinstance(label, Decimal):
        return str(int(label)) if label.is_finite() and label == label.to_integral_value() else str(label)
    is_json = isinstance(label, (bool, int, float, list, tuple, dict)) or label is None
    return json.dumps(label, ensure_ascii=False, default=str) if is_json else str(label)
