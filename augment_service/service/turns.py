"""Serialises requests with longer bodies: one at a time is parsed and measured.

In between, the event loop polls all connections, so a small request overtakes a crowd of large ones instead of waiting
until all of them have been parsed.
"""

from __future__ import annotations

import asyncio
from collections import deque

from shared.errors import OverloadError


class GaveWayError(OverloadError):
    """A queued request was refused to make room for another connection, so its own has to close."""


class Turns:
    """Waiting requests, oldest first. Use from one event loop."""

    def __init__(self) -> None:
        self._is_taken = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def num_waiting(self) -> int:
        """Number of waiting requests, including those whose clients have just disconnected."""
        return len(self._waiting)

    async def take(self) -> None:
        """Wait for a turn. Raises OverloadError when the request is refused to make room."""
        if not self._is_taken:
            self._is_taken = True
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.end()
            raise

    def end(self) -> None:
        """End the turn; the next one begins after the event loop has polled all connections."""
        asyncio.get_running_loop().call_soon(self._pass_on)

    def refuse_newest(self) -> bool:
        """Refuse the newest waiting request; False if there is none."""
        while self._waiting:
            turn = self._waiting.pop()
            if not turn.done():
                turn.set_exception(GaveWayError("too many large requests are waiting; try again"))
                return True
        return False

    def _pass_on(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._is_taken = False
