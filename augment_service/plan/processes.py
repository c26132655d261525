"""Objects that each live in a separate process, for measuring as many processes at once as a job would have.

A `concurrent.futures` executor would need a global variable in its process to keep an object between calls.
"""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Concatenate, Generic, TypeVar

from shared.errors import ClusterError

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """The return value or exception of a call."""

    value: Any = None
    error: Exception | None = None


class OwnProcess(Generic[T]):
    """An object made by `make()` in a new process. Call `start`, then `result`; one call at a time.

    make: a class or function of an importable module, called in the new process.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(make, theirs), daemon=True)
        self._process.start()
        # Now only the process holds its end of the pipe, so reading fails as soon as it dies.
        theirs.close()

    def start(self, method: Callable[Concatenate[T, ...], Any], *arguments: Any) -> None:
        """Start a method call on the object; the method is given as a function such as `Bench.load`."""
        try:
            self._connection.send((method, arguments))
        except OSError as error:
            raise _died() from error

    def result(self) -> Any:
        """Wait for the call; raises what the method raised, and ClusterError if the process died."""
        try:
            answer: _Answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise _died() from error
        if answer.error is not None:
            raise answer.error
        return answer.value

    def close(self) -> None:
        """End the process, once its current call has returned."""
        self._connection.close()
        self._process.join()
        self._process.close()


def each(
    processes: Sequence[OwnProcess[T]], method: Callable[Concatenate[T, ...], R], parts: Sequence[tuple[Any, ...]]
) -> list[R]:
    """Call a method in all processes at once, with separate arguments for each; returns the results in order."""
    for process, part in zip(processes, parts, strict=True):
        process.start(method, *part)
    return [process.result() for process in processes]


@contextmanager
def own_processes(count: int, make: Callable[[], T], num_threads: int) -> Iterator[list[OwnProcess[T]]]:
    """`count` processes with one object each, and OMP_NUM_THREADS set as Ray does for an actor."""
    with ExitStack() as stack:
        with _environment("OMP_NUM_THREADS", str(num_threads)):
            processes = [OwnProcess(make) for _ in range(count)]
        for process in processes:
            stack.callback(process.close)
        yield processes


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _died() -> ClusterError:
    return ClusterError(
        "a calibration process died, most likely because memory ran out; use fewer --mlm-actors or a smaller "
        "--batch-tokens"
    )


def _serve(make: Callable[[], Any], connection: Connection) -> None:
    """Main function of the process: create the object, then serve calls until the other end closes."""
    try:
        made = make()
        while True:
            method, arguments = connection.recv()
            try:
                answer = _Answer(value=method(made, *arguments))
            except Exception as error:
                error.add_note(f"in a calibration process:\n{traceback.format_exc()}")
                answer = _Answer(error=error)
            connection.send(answer)
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return
