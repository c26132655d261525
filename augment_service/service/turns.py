"""Turns of requests with longer bodies: one at a time is parsed and measured.

After it the event loop looks at all connections, so that a small request passes a crowd of large ones instead of
waiting until each of them was judged.
"""

from __future__ import annotations

import asyncio
from collections import deque

from shared.errors import OverloadError


class Turns:
    """Requests that wait, the oldest first. Use from one event loop."""

    def __init__(self) -> None:
        self._is_taken = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def num_waiting(self) -> int:
        """How many requests wait, those whose clients have just gone included."""
        return len(self._waiting)

    async def take(self) -> None:
        """Wait for the turn. Raises OverloadError when the request was refused to make room."""
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
        """The next one follows after the event loop has looked at all connections."""
        asyncio.get_running_loop().call_soon(self._pass_on)

    def refuse_newest(self) -> bool:
        """Refuse the request that came last of those that wait; False if none waits."""
        while self._waiting:
            turn = self._waiting.pop()
            if not turn.done():
                turn.set_exception(OverloadError("too many large requests wait to be read; try again", 1.0))
                return True
        return False

    def _pass_on(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._is_taken = False
