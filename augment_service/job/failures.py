"""What a failed Ray call says: its cause, as an error for the user and as one line for a log."""

from __future__ import annotations

from typing import Any

from shared.errors import ClusterError, ExpectedError

_IN_CREATION = "creation task"
_LONGEST = 300


def cause_of(error: Any) -> Any:
    """What was raised in the worker, from Ray's RayTaskError."""
    cause = error.cause
    return cause if isinstance(cause, BaseException) else error


def expected_error(cause: BaseException) -> ExpectedError:
    """The cause itself if it is meant for the user, else a ClusterError that names it."""
    if isinstance(cause, ExpectedError):
        return cause
    return ClusterError(f"a worker failed: {type(cause).__name__}: {str(cause).splitlines()[-1]}")


def died_in_creation(reason: str) -> bool:
    """Whether a RayActorError says that the actor died in its constructor."""
    return _IN_CREATION in reason


def short_reason(reason: str) -> str:
    """The most informative line: the first, or the last of an exception that was raised in an actor's constructor."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    if not lines:
        return "no reason given"
    return lines[-1 if _IN_CREATION in lines[0] else 0][:_LONGEST]
