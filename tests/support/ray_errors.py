"""One error of each class that Ray may give as the answer of a call."""

from __future__ import annotations

from typing import Any

import ray

_CARRY_OUR_ERRORS = (ray.exceptions.RayTaskError, ray.exceptions.UnserializableException)


def every_ray_error() -> list[Exception]:
    """Errors with the text "gone", without the classes that carry an error of our code."""
    made: list[Exception] = []
    todo: list[Any] = ray.exceptions.RayError.__subclasses__()
    while todo:
        kind = todo.pop()
        if kind.__module__ != "ray.exceptions" or issubclass(kind, _CARRY_OUR_ERRORS):
            continue
        todo += kind.__subclasses__()
        # Their constructors differ, and only their classes matter here.
        with_text: Any = type(kind.__name__, (kind,), {"__str__": lambda _: "gone", "__module__": __name__})
        made.append(with_text.__new__(with_text))
    return made


def raised(cause: Exception) -> Exception:
    """The answer of a call in which `cause` was raised."""
    error: Exception = ray.exceptions.RayTaskError("work", "Traceback", cause)
    return error
