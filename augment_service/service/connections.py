"""uvicorn's HTTP protocol with two more limits: the number of open connections, and how long one may stay silent.

uvicorn waits indefinitely for the first request on a connection, for the rest of its headers, and for a client that
does not read its response. One silent connection costs little, but thousands of them exhaust the service.
"""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from augment_service.service.problems import PROBLEM_TYPE, problem_bytes

FIRST_REQUEST_SECONDS = 10.0
UNREAD_ANSWER_SECONDS = 30.0


class GuardedConfig(uvicorn.Config):
    """uvicorn's configuration with GuardedProtocol and its limit of open connections."""

    def __init__(self, app: Any, *, max_connections: int, **options: Any) -> None:
        super().__init__(app, http=GuardedProtocol, **options)
        self.max_connections = max_connections


class GuardedProtocol(HttpToolsProtocol):
    """One connection of a server that was configured with GuardedConfig."""

    def __init__(self, config: uvicorn.Config, *arguments: Any, **named: Any) -> None:
        super().__init__(config, *arguments, **named)
        assert isinstance(config, GuardedConfig)
        self._max_connections = config.max_connections

    def connection_made(self, transport: Any) -> None:
        """Accept the connection, or close it with a 503 when too many are open."""
        super().connection_made(transport)
        self._guard = self._wait_for_request()
        if len(self.connections) > self._max_connections:
            body = problem_bytes(503, "too many connections; try again", "overload")
            head = (
                f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: {PROBLEM_TYPE}\r\nContent-Length: {len(body)}\r\n"
                "Retry-After: 1\r\nConnection: close\r\n\r\n"
            )
            transport.write(head.encode() + body)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timer of the connection."""
        self._guard.cancel()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """Cancel the timer: from here on the application's own time limit applies."""
        self._guard.cancel()
        super().on_headers_complete()

    def on_message_begin(self) -> None:
        """Restart the timer: after the first bytes of a request its headers must arrive in time."""
        self._guard.cancel()
        self._guard = self._wait_for_request()
        super().on_message_begin()

    def on_response_complete(self) -> None:
        """Limit how long the client may take to read the response."""
        super().on_response_complete()
        if not self.transport.is_closing() and self.transport.get_write_buffer_size():
            self._guard.cancel()
            self._guard = self.loop.call_later(UNREAD_ANSWER_SECONDS, self._abort_unread)

    def _wait_for_request(self) -> asyncio.TimerHandle:
        return self.loop.call_later(FIRST_REQUEST_SECONDS, self._close_silent)

    def _close_silent(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def _abort_unread(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()
