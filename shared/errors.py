"""Errors whose message is meant for the user: what went wrong, where, and how to fix it.

Exit codes and HTTP statuses are class attributes; only the command line and the service read them. Any error that is
not an ExpectedError is a bug. Every class takes plain positional arguments, because Ray pickles errors to pass them
between processes.
"""

from __future__ import annotations


class ExpectedError(Exception):
    """A failure that the user can understand and fix; its message is one line of text."""

    exit_code = 1
    http_status = 500

    def __str__(self) -> str:
        return " ".join(str(self.args[0]).split()) if self.args else self.__class__.__name__


class UsageError(ExpectedError):
    """A flag, a configuration file or a combination of options is wrong."""

    exit_code = 2
    http_status = 422


class InputError(ExpectedError):
    """An input file or column cannot be used. A single bad row is quarantined instead."""

    http_status = 422


class ModelError(ExpectedError):
    """A masked LM, word vectors or a teacher is missing or of the wrong kind."""

    http_status = 503


class OutputError(ExpectedError):
    """The contents of an output folder cannot be used."""


class ShardError(OutputError):
    """A shard's checksum, rows or schema differ from its commit."""


class ShardSizeError(OutputError):
    """The samples of a shard exceed what its file format can hold."""


class ManifestError(OutputError):
    """An output folder belongs to another job or another format version."""


class StoreError(ExpectedError):
    """Disk or object store failed. is_transient: whether a retry may help."""

    http_status = 503

    def __init__(self, message: str, is_transient: bool = False) -> None:
        super().__init__(message, is_transient)
        self.is_transient = is_transient


class ClusterError(ExpectedError):
    """Ray cannot be reached, refused the token, or lost an actor more often than it is retried."""

    http_status = 503


class OverloadError(ExpectedError):
    """The queue is full; try again after `retry_after_seconds`."""

    http_status = 503

    def __init__(self, message: str, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message, retry_after_seconds)
        self.retry_after_seconds = retry_after_seconds


class TrainingError(ExpectedError):
    """Training cannot continue: the loss is not finite, or new data has stopped arriving."""
