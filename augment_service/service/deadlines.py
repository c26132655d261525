"""Time limits of one request: until its body has arrived, then until its answer begins.

While an answer is being sent, the connection checks that the client reads it. At the end of the drain period, every
request is ended.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class Deadlines:
    """The deadlines of all requests in flight. Use from one event loop."""

    def __init__(self) -> None:
        self.are_over = False
        self._active: set[Deadline] = set()

    def new(self) -> Deadline:
        """A deadline that is not yet set."""
        return Deadline(self, self._active)

    def end(self) -> None:
        """End every request now, including future ones."""
        self.are_over = True
        for one in self._active:
            one.allow(None)


class Deadline:
    """An asynchronous context manager that raises TimeoutError at the deadline."""

    def __init__(self, all_deadlines: Deadlines, active: set[Deadline]) -> None:
        self._all, self._active, self._timeout = all_deadlines, active, asyncio.timeout(None)

    def allow(self, seconds: float | None) -> None:
        """Set the deadline to `seconds` from now; None: no deadline. Does nothing outside the context."""
        if self not in self._active or self._timeout.expired():
            return
        now = asyncio.get_running_loop().time()
        if self._all.are_over:
            self._timeout.reschedule(now)
        else:
            self._timeout.reschedule(None if seconds is None else now + seconds)

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._active.add(self)
        if self._all.are_over:
            self.allow(None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._active.discard(self)
        await self._timeout.__aexit__(kind, error, trace)
