"""uvicorn's HTTP protocol with limits on the time and memory that one connection may take.

uvicorn waits indefinitely for the first request on a connection, for the rest of its headers, and for a client that
does not read its response, and it buffers headers of any size. Here all of that is bounded, and every refusal is a
problem document that also reaches a client that is still sending.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from augment_service.service.problems import problem_message
from augment_service.service.turns import Turns

FIRST_REQUEST_SECONDS = 10.0
UNREAD_ANSWER_SECONDS = 30.0
MAX_HEAD_BYTES = 65_536
"""Limit of the request line and headers, or of chunk extensions and trailers between two parts of a body."""
MAX_HEADERS = 200
MAX_PIPELINED = 32
"""Limit of pipelined requests: those sent before the previous answer. Each takes memory as soon as it arrives."""
LINGER_SECONDS = 2.0
"""How long a client that is still sending has to read a refusal. Closing at once would reset its connection."""
MAX_LINGERING = 64
"""Connections beyond the limit that may linger for that time."""
MAX_UNNOTICED = 64
"""Connections beyond the limit while requests wait to be parsed: about this many others may have closed unnoticed."""
MIN_WAIT_SECONDS = 1.0
"""At the connection limit, a connection that has sent no whole request for this long is closed to admit a new one."""
_SLICE_BYTES = 16_384


class GuardedConfig(uvicorn.Config):
    """uvicorn's configuration with GuardedProtocol and its limit of open connections."""

    def __init__(
        self,
        app: Any,
        *,
        max_connections: int,
        count_refusal: Callable[[str], None] | None = None,
        turns: Turns | None = None,
        **options: Any,
    ) -> None:
        super().__init__(app, http=GuardedProtocol, **options)
        self.max_connections = max_connections
        self.count_refusal = count_refusal or (lambda code: None)
        self.turns = turns
        self.waiting: OrderedDict[GuardedProtocol, float] = OrderedDict()
        """Connections without a whole request and the time each began to wait, oldest first."""


class GuardedProtocol(HttpToolsProtocol):
    """One connection of a server configured with GuardedConfig."""

    def __init__(self, config: uvicorn.Config, *arguments: Any, **named: Any) -> None:
        super().__init__(config, *arguments, **named)
        assert isinstance(config, GuardedConfig)
        self._max_connections, self._count_refusal = config.max_connections, config.count_refusal
        self._waiting, self._turns = config.waiting, config.turns
        self._num_headers = self._bare_bytes = 0
        self._has_progress = False
        self._discards = False
        self._reader_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Accept the connection. When too many are open, close an idle one, or else this one, with a 503."""
        super().connection_made(_Transport(transport, self._close))  # type: ignore[arg-type]
        self._raw_transport = transport
        self._guard = self._wait_for_request()
        is_too_many = len(self.connections) > self._max_connections and not self._make_room()
        self._waiting[self] = self.loop.time()
        if is_too_many:
            self._count_refusal("connections")
            message = _too_many_connections()
            if len(self.connections) <= self._max_connections + MAX_LINGERING:
                self._refuse(message)
            else:
                transport.write(message)
                transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers of the connection, and let go of it without the garbage collector."""
        self._waiting.pop(self, None)
        self._guard.cancel()
        if self._reader_timer is not None:
            self._reader_timer.cancel()
        super().connection_lost(exc)
        # Both refer to this object.
        self.cycle = None  # type: ignore[assignment]
        self.transport.close = self._raw_transport.close  # type: ignore[method-assign]

    def data_received(self, data: bytes) -> None:
        """Parse the next bytes; refuse anything that is not HTTP, and headers beyond the limits."""
        if len(data) <= _SLICE_BYTES:
            self._feed(data)
            return
        for start in range(0, len(data), _SLICE_BYTES):
            self._feed(data[start : start + _SLICE_BYTES])

    def on_headers_complete(self) -> None:
        """Cancel the timer: from here on the application's own timeouts apply."""
        self._guard.cancel()
        self._has_progress = True
        if len(self.pipeline) >= MAX_PIPELINED:
            raise _TooManyRequestsError
        super().on_headers_complete()

    def on_message_begin(self) -> None:
        """Restart the timer: once a request has begun, its headers must arrive in time."""
        self._guard.cancel()
        self._guard = self._wait_for_request()
        self._num_headers = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header, up to a maximum number. Trailers also arrive here, but are ignored."""
        self._num_headers += 1
        if self._num_headers > MAX_HEADERS:
            raise _TooManyHeadersError
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Collect a part of a body."""
        self._has_progress = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Record that the whole request has arrived."""
        self._waiting.pop(self, None)
        self._has_progress = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Start the read timeout of the response, and do not wait for the rest of a request."""
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self.cycle.response_complete:
            self._waiting[self] = self.loop.time()
            self._waiting.move_to_end(self)
        if self.cycle.response_complete and self.cycle.more_body:
            self.transport.close()
        elif self.transport.get_write_buffer_size():
            self._guard.cancel()
            self._guard = self.loop.call_later(UNREAD_ANSWER_SECONDS, self._abort_unread)

    def pause_writing(self) -> None:
        """Back-pressure: pause the application, and give the client a deadline for reading some of the response."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """Resume the application."""
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None
        super().resume_writing()

    def _feed(self, data: bytes) -> None:
        if self._discards or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._has_progress = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return  # no protocol upgrade is offered: the request is answered as HTTP
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, _TooManyHeadersError):
                self._count_refusal("headers-too-large")
                self._refuse(problem_message(431, f"more than {MAX_HEADERS} headers"))
            else:
                self._count_refusal("not-http")
                self._refuse(problem_message(400, "the request is not valid HTTP", "not-http"))
            return
        # The only memory taken before the application sees anything: bytes that complete no part of a request.
        self._bare_bytes = 0 if self._has_progress else self._bare_bytes + len(data)
        if self._bare_bytes > MAX_HEAD_BYTES:
            self._count_refusal("headers-too-large")
            self._refuse(problem_message(431, f"the headers are longer than {MAX_HEAD_BYTES} bytes"))

    def _refuse(self, message: bytes) -> None:
        """Send a refusal instead of an answer, and close. An answer already in progress is finished first."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._discards = True
            self.cycle.keep_alive = False
            if not self.cycle.more_body:
                return
            if not self.cycle.response_started:
                self._raw_transport.write(message)
            self.cycle.disconnected = True  # its body will never be complete
            self.cycle.message_event.set()
            self._linger()
            return
        self._raw_transport.write(message)
        self._linger()

    def _make_room(self) -> bool:
        """Evict the connection that has waited longest for a whole request, if it has waited long enough, or refuse a
        large request that waits to be parsed."""
        oldest = next(iter(self._waiting), None)
        if oldest is None or self._waiting[oldest] + MIN_WAIT_SECONDS > self.loop.time():
            return self._turns is not None and self._make_room_of_turns(self._turns)
        del self._waiting[oldest]
        oldest.give_way()
        return True

    def _make_room_of_turns(self, turns: Turns) -> bool:
        # Refused clients reconnect before their old connections are seen to be closed. If each reconnect evicted
        # another client, a crowd would cause nothing but evictions.
        if len(self.connections) <= self._max_connections + MAX_UNNOTICED and turns.num_waiting:
            return True
        return turns.refuse_newest()

    def give_way(self) -> None:
        """Close this connection to make room for another; a client that has begun a request gets a refusal."""
        has_begun = self.cycle is not None and not self.cycle.response_complete
        if has_begun and not self.cycle.response_started and not self.transport.is_closing():
            self._count_refusal("connections")
            self._raw_transport.write(_too_many_connections())
        self._discards = True
        self.transport.stop()  # type: ignore[attr-defined]
        self._close_raw()

    def _close(self) -> None:
        """Close the connection at once or, if the client is still sending, after its data has been discarded."""
        if self.cycle is not None and self.cycle.more_body:
            self._linger()
        else:
            self._close_raw()

    def _close_raw(self) -> None:
        self._guard.cancel()
        self._raw_transport.close()
        if self._raw_transport.get_write_buffer_size():
            self._guard = self.loop.call_later(UNREAD_ANSWER_SECONDS, self._raw_transport.abort)

    def _linger(self) -> None:
        self._discards = True
        self._guard.cancel()
        self.transport.stop()  # type: ignore[attr-defined]
        if self._raw_transport.is_closing():
            return
        self.flow.resume_reading()
        if self._raw_transport.can_write_eof():
            self._raw_transport.write_eof()
        self._guard = self.loop.call_later(LINGER_SECONDS, self._close_raw)

    def _wait_for_request(self) -> asyncio.TimerHandle:
        return self.loop.call_later(FIRST_REQUEST_SECONDS, self._close_silent)

    def _close_silent(self) -> None:
        if not self._raw_transport.is_closing():
            self._close_raw()

    def _abort_unread(self) -> None:
        if self._raw_transport.get_write_buffer_size():
            self._raw_transport.abort()

    def _watch_reader(self) -> None:
        left = self._raw_transport.get_write_buffer_size()
        self._reader_timer = self.loop.call_later(UNREAD_ANSWER_SECONDS, self._check_reader, left)

    def _check_reader(self, left: int) -> None:
        # Nothing is written while writing is paused, so the buffer shrinks if the client reads.
        if self._raw_transport.get_write_buffer_size() < left:
            self._watch_reader()
        else:
            self._raw_transport.abort()


def _too_many_connections() -> bytes:
    return problem_message(503, "too many connections; try again", "overload", {"Retry-After": "1"})


class _TooManyHeadersError(Exception):
    pass


class _TooManyRequestsError(Exception):
    pass


class _Transport:
    """A transport whose `close` calls the connection's own, and which counts as closing from then on."""

    def __init__(self, transport: Any, close: Callable[[], None]) -> None:
        self._transport, self._is_closing = transport, False
        self.close = close
        self.write = transport.write
        self.get_write_buffer_size, self.get_extra_info = transport.get_write_buffer_size, transport.get_extra_info
        self.pause_reading, self.resume_reading = transport.pause_reading, transport.resume_reading

    def stop(self) -> None:
        """Mark as closing, and send nothing more; the connection closes the transport itself."""
        self._is_closing, self.write = True, lambda _: None

    def is_closing(self) -> bool:
        """Whether nothing more should be sent."""
        return self._is_closing or bool(self._transport.is_closing())
