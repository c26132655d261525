"""SIGTERM and SIGINT: a run writes a checkpoint between two steps, then ends as Ctrl-C does (exit code 130).

While a run only waits or scores, its state is complete, so a signal ends it at once. Within a step it waits for the end
of the step. A second signal does not wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)
STOP = "stop-requested"
"""File in a run's folder that asks the first of several workers to stop; the command that started them writes it."""
GRACE_SECONDS = 30
"""Time that workers get to write a checkpoint; a worker that is waiting for data cannot."""


class Interruption:
    """Handles the signals of this process within a `with` block, if it is in the main thread."""

    def __init__(self) -> None:
        self.is_requested = False
        self._may_raise = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._previous = {one: signal.signal(one, self._handle) for one in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for one, handler in self._previous.items():
            signal.signal(one, handler)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """A block that a signal may interrupt at any point: raises KeyboardInterrupt."""
        self._may_raise = True
        try:
            self.check()
            yield
        finally:
            self._may_raise = False

    def check(self) -> None:
        """Raises KeyboardInterrupt when a signal has arrived."""
        if self.is_requested:
            raise KeyboardInterrupt

    def _handle(self, _number: int, _frame: object) -> None:
        is_second, self.is_requested = self.is_requested, True
        if self._may_raise or is_second:
            raise KeyboardInterrupt


class WorkersInterruption:
    """Within a `with` block, a signal asks the workers of a run to stop; the block then ends with KeyboardInterrupt.

    folder: where the STOP file is written; ask: notifies a first worker that does not see this folder.
    """

    def __init__(self, folder: Path, ask: Callable[[], object] | None = None) -> None:
        self._stop, self._ask = folder / STOP, ask
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> None:
        self._stop.unlink(missing_ok=True)
        if threading.current_thread() is threading.main_thread():
            self._previous = {one: signal.signal(one, self._handle) for one in (*SIGNALS, signal.SIGALRM)}

    def __exit__(self, *_: object) -> None:
        signal.alarm(0)
        for one, handler in self._previous.items():
            signal.signal(one, handler)
        if self._stop.exists():
            self._stop.unlink()
            raise KeyboardInterrupt

    def _handle(self, _number: int, _frame: object) -> None:
        if self._stop.exists():
            raise KeyboardInterrupt
        self._stop.touch()
        signal.alarm(GRACE_SECONDS)
        if self._ask is not None:
            self._ask()


class StopRequest:
    """Passes a stop request to a worker on another machine; a Ray actor in its own process."""

    def __init__(self) -> None:
        self._is_made = asyncio.Event()

    async def make(self) -> None:
        """Request a stop."""
        self._is_made.set()

    async def wait(self) -> None:
        """Return once a stop has been requested."""
        await self._is_made.wait()
