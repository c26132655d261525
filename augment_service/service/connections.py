"""uvicorn's HTTP protocol with two more bounds: how many connections are open, and how long one may be silent.

uvicorn itself waits without end for the first request of a connection, for the rest of its headers, and for a client
that does not read its answer. A silent connection costs little, thousands of them the service.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from augment_service.service.problems import PROBLEM_TYPE, problem_bytes

FIRST_REQUEST_SECONDS = 10.0
UNREAD_ANSWER_SECONDS = 30.0


class GuardedProtocol(HttpToolsProtocol):
    """One connection."""

    max_connections: ClassVar[int] = 2_000

    def connection_made(self, transport: Any) -> None:
        """Take the connection, or close it with a 503 when there are too many."""
        super().connection_made(transport)
        self._guard = self._wait_for_request()
        if len(self.connections) > self.max_connections:
            body = problem_bytes(503, "too many connections; try again", "overload")
            head = (
                f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: {PROBLEM_TYPE}\r\nContent-Length: {len(body)}\r\n"
                "Retry-After: 1\r\nConnection: close\r\n\r\n"
            )
            transport.write(head.encode() + body)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._guard.cancel()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """The request is here: its body and answer have the time limit of the application."""
        self._guard.cancel()
        super().on_headers_complete()

    def on_message_begin(self) -> None:
        """The first bytes of a request: its headers must follow soon."""
        self._guard.cancel()
        self._guard = self._wait_for_request()
        super().on_message_begin()

    def on_response_complete(self) -> None:
        """The answer is written, though perhaps not read."""
        super().on_response_complete()
        if not self.transport.is_closing() and self.transport.get_write_buffer_size():
            self._guard.cancel()
            self._guard = self.loop.call_later(UNREAD_ANSWER_SECONDS, self._abort_unread)

    def _wait_for_request(self) -> asyncio.TimerHandle:
        return self.loop.call_later(FIRST_REQUEST_SECONDS, self._abort_silent)

    def _abort_silent(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def _abort_unread(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()
