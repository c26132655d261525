"""JSON files with a known schema, validated while parsing, so that nothing fails later on a missing key."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")

SHOWN_CHARACTERS = 60

_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def parse_json(kind: type[T], content: bytes) -> T:
    """`content` as a `kind` (a dataclass or pydantic model), without converting types: "3" is not a number.

    Raises ValueError with one line that names the first bad field.
    """
    try:
        parsed: T = _adapter(kind).validate_json(content, strict=True)
        return parsed
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        raise ValueError(f"{field}: {message}" if field else message) from error


def to_json_object(value: Any) -> Any:
    """A dataclass or pydantic model as plain JSON values, under the names that `parse_json` expects."""
    return _adapter(type(value)).dump_python(value, mode="json", by_alias=True, exclude_unset=True)


def short_json(value: Any) -> str:
    """A value as JSON for a message, cut at 60 characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."


def _adapter(kind: Any) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]
