"""Classifies errors of Ray calls, and turns them into errors for the user and log lines."""

from __future__ import annotations

from typing import Any

from shared.errors import ClusterError, ExpectedError

_IN_CREATION = "creation task"
_LONGEST = 300


class BrokenProcessError(Exception):
    """A worker process is unusable, for instance after a device error, and must be replaced."""


class BrokenVectorsError(Exception):
    """The word-vector process fails on every word and must be replaced."""


def cause_of(error: Any) -> Any:
    """The original error inside any number of nested RayTaskErrors."""
    while isinstance(cause := getattr(error, "cause", None), BaseException) and cause is not error:
        error = cause
    return error


def is_rays_own(ray: Any, error: Any) -> bool:
    """Whether Ray itself failed (an actor, a node, an object or memory was lost), rather than code that it ran.

    Ray wraps an unpicklable error of the code in a plain RayError, so that one counts as the code's.
    """
    cause, known = cause_of(error), ray.exceptions
    if isinstance(cause, (known.RayTaskError, known.UnserializableException)) or type(cause) is known.RayError:
        return False
    return isinstance(cause, known.RayError)


def expected_error(cause: BaseException) -> ExpectedError:
    """The cause itself if it is an ExpectedError, else a ClusterError that names it."""
    if isinstance(cause, ExpectedError):
        return cause
    lines = str(cause).splitlines() or [""]
    return ClusterError(f"a worker failed: {type(cause).__name__}: {lines[-1]}")


def died_in_creation(reason: str) -> bool:
    """Whether a RayActorError says that the actor died in its constructor."""
    return _IN_CREATION in reason


def short_reason(reason: str) -> str:
    """The most informative line: the first, or the last for an exception in an actor's constructor."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    if not lines:
        return "no reason given"
    return lines[-1 if _IN_CREATION in lines[0] else 0][:_LONGEST]
