"""What a failed Ray call says: whose error it is, as an error for the user, and as one line for a log."""

from __future__ import annotations

from typing import Any

from shared.errors import ClusterError, ExpectedError

_IN_CREATION = "creation task"
_LONGEST = 300


class BrokenProcessError(Exception):
    """A worker process that can do no more work, for instance after a device error: it must be replaced."""


class BrokenVectorsError(Exception):
    """The process of the word vectors fails on every word: it must be replaced."""


def cause_of(error: Any) -> Any:
    """What was raised at first, inside any number of Ray's RayTaskError."""
    while isinstance(cause := getattr(error, "cause", None), BaseException) and cause is not error:
        error = cause
    return error


def is_rays_own(ray: Any, error: Any) -> bool:
    """Whether Ray itself failed (an actor, a node, an object or memory was lost), rather than code that it ran.

    A plain RayError is how Ray passes on an error that cannot be pickled, so that counts as the code's.
    """
    cause, known = cause_of(error), ray.exceptions
    if isinstance(cause, (known.RayTaskError, known.UnserializableException)) or type(cause) is known.RayError:
        return False
    return isinstance(cause, known.RayError)


def expected_error(cause: BaseException) -> ExpectedError:
    """The cause itself if it is meant for the user, else a ClusterError that names it."""
    if isinstance(cause, ExpectedError):
        return cause
    lines = str(cause).splitlines() or [""]
    return ClusterError(f"a worker failed: {type(cause).__name__}: {lines[-1]}")


def died_in_creation(reason: str) -> bool:
    """Whether a RayActorError says that the actor died in its constructor."""
    return _IN_CREATION in reason


def short_reason(reason: str) -> str:
    """The most informative line: the first, or the last of an exception that was raised in an actor's constructor."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    if not lines:
        return "no reason given"
    return lines[-1 if _IN_CREATION in lines[0] else 0][:_LONGEST]
