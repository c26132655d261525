"""Middleware for every request: host and token, its body, concurrency and time limits, metrics, errors -> problems."""

from __future__ import annotations

import logging
import random
import re
import time
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import ValidationError

from augment_service.service import problems
from augment_service.service.access import Access, is_loopback
from augment_service.service.admission import Gate, Lease
from augment_service.service.body import ClientGoneError, read_body
from augment_service.service.deadlines import Deadline, Deadlines
from augment_service.service.metrics import ServiceMetrics
from shared.errors import ExpectedError

logger = logging.getLogger(__name__)

STREAM_PATH = "/v1/augment/stream"
WORK_PATHS = ("/v1/augment", "/v1/candidates", STREAM_PATH)
KNOWN_PATHS = frozenset(
    {*WORK_PATHS, "/", "/page.css", "/page.js", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"}
)
CLIENT_GONE_STATUS = 499
REQUEST_ID_HEADER = b"x-request-id"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
SECURITY_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]


@dataclass(frozen=True, slots=True, kw_only=True)
class MiddlewareSettings:
    """Limits that hold before a request is understood.

    body_seconds: for the body to arrive. request_seconds: from then until the answer begins; a stream has no such
    limit. access_log: one log line per request, without texts or tokens. only_loopback_hosts: reject every Host header
    but a loopback name (DNS-rebinding protection).
    """

    max_body_bytes: int
    body_seconds: float
    request_seconds: float
    access_log: bool = False
    only_loopback_hosts: bool = False


class Middleware:
    """ASGI middleware around the whole application."""

    def __init__(
        self,
        app: Any,
        *,
        access: Access,
        settings: MiddlewareSettings,
        metrics: ServiceMetrics,
        gate: Gate,
        deadlines: Deadlines,
    ) -> None:
        self._app, self._access, self._settings, self._metrics = app, access, settings, metrics
        self._gate, self._deadlines = gate, deadlines
        self._in_flight = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        path = scope["path"]
        status = 0
        deadline, lease = self._deadlines.new(), self._gate.lease()
        request_id = _request_id(scope)

        async def watched(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *SECURITY_HEADERS, (REQUEST_ID_HEADER, request_id)]
                deadline.allow(None)
            await send(message)

        self._in_flight += 1
        self._metrics.in_flight.set(self._in_flight)
        try:
            self._check(scope, path)
            async with deadline:
                if path in WORK_PATHS and scope["method"] == "POST":
                    await self._admit(scope, receive, deadline, lease)
                await self._app(scope, receive, watched)
        except ClientGoneError:
            status = CLIENT_GONE_STATUS
        except _RefusedError as refused:
            await self._refuse(refused.response, scope, receive, watched)
        except ValidationError as error:
            await self._refuse(problems.of_validation(error), scope, receive, watched)
        except Exception as error:
            if not isinstance(error, (ExpectedError, TimeoutError)):
                # The message of an unexpected error may contain text of the request: log its type and location only.
                logger.error("request_failed", extra={"fields": _place(error, path) | {"id": request_id.decode()}})
            if not status:
                await self._refuse(self._problem(error, lease), scope, receive, watched)
            elif not isinstance(error, TimeoutError):
                raise
        finally:
            lease.release()
            self._in_flight -= 1
            self._metrics.in_flight.set(self._in_flight)
            route, seconds = path if path in KNOWN_PATHS else "other", time.perf_counter() - began
            self._metrics.answered(route, status, seconds)
            if self._settings.access_log:
                _log_request(scope["method"], route, status, seconds, request_id)

    def _check(self, scope: Any, path: str) -> None:
        authorization = host = None
        for name, value in scope["headers"]:
            if name == b"authorization":
                authorization = value
            elif name == b"host":
                host = value
        if self._settings.only_loopback_hosts and not _is_loopback_host(host):
            raise _RefusedError(problems.problem(421, "without tokens this service accepts loopback host names only"))
        if (path in WORK_PATHS or path == "/metrics") and not self._access.allows(authorization):
            detail = "this service requires a token: send the header Authorization: Bearer TOKEN"
            raise _RefusedError(problems.problem(401, detail, headers={"WWW-Authenticate": "Bearer"}))

    async def _admit(self, scope: Any, receive: Any, deadline: Deadline, lease: Lease) -> None:
        """Read the body into `scope["lease"]`; only then does the request take a slot."""
        settings = self._settings
        deadline.allow(settings.body_seconds)
        lease.body = await read_body(scope, receive, settings.max_body_bytes, lease)
        lease.take_slot()
        # A stream has no time limit: the number of its texts is limited, and each of them waits in the queue.
        deadline.allow(None if scope["path"] == STREAM_PATH else settings.request_seconds)
        scope["lease"] = lease

    def _problem(self, error: Exception, lease: Lease) -> Any:
        if not isinstance(error, TimeoutError):
            return problems.of_error(error)
        if self._deadlines.are_over:
            detail = "the service is shutting down, and its time for finishing requests is over"
            return problems.problem(503, detail, headers={"Retry-After": "1"})
        if not lease.has_slot:
            detail = f"the body did not arrive within {self._settings.body_seconds:g} seconds"
            return problems.problem(408, detail)
        return problems.of_error(error)

    async def _refuse(self, response: Any, scope: Any, receive: Any, send: Any) -> None:
        self._metrics.rejected(_code_of(response))
        if response.status_code in (401, 408, 413, 415):
            # The body may be unread, and the rest of it must not be parsed as the next request.
            response.headers["Connection"] = "close"
        await response(scope, receive, send)


class _RefusedError(Exception):
    def __init__(self, response: Any) -> None:
        super().__init__()
        self.response = response


def _code_of(response: Any) -> str:
    return str(orjson.loads(response.body)["code"])


def _request_id(scope: Any) -> bytes:
    """The id that the client or a proxy chose, if it is a harmless one, or a new one."""
    for name, value in scope["headers"]:
        if name == REQUEST_ID_HEADER and _REQUEST_ID.fullmatch(value):
            return bytes(value)
    return b"%016x" % random.getrandbits(64)


def _log_request(method: str, route: str, status: int, seconds: float, request_id: bytes) -> None:
    fields = {"method": method, "route": route, "status": status, "seconds": seconds, "id": request_id.decode()}
    logger.info("request", extra={"fields": fields})


def _is_loopback_host(host: bytes | None) -> bool:
    if host is None:
        return True
    name = host.decode("latin-1")
    bare = name[: name.rindex("]") + 1] if name.startswith("[") and "]" in name else name.partition(":")[0]
    return is_loopback(bare)


def _place(error: BaseException, path: str) -> dict[str, Any]:
    frames, trace = [], error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{code.co_filename.rpartition('site-packages/')[2]}:{trace.tb_lineno}")
        trace = trace.tb_next
    return {"path": path if path in KNOWN_PATHS else "other", "error": type(error).__name__, "at": frames[-6:]}
