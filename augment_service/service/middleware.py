"""Middleware for every request: host and token checks, body, admission, time limits, metrics, errors -> problems."""

from __future__ import annotations

import logging
import random
import re
import time
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic import ValidationError

from augment_service.service import problems
from augment_service.service.access import Access, is_loopback
from augment_service.service.admission import Gate, Lease
from augment_service.service.body import ClientGoneError, read_body
from augment_service.service.cors import Cors
from augment_service.service.deadlines import Deadline, Deadlines
from augment_service.service.metrics import ServiceMetrics
from augment_service.service.page_routes import PAGE_FILES
from augment_service.service.tokens import Token
from augment_service.service.traces import NoTracer, Tracer
from augment_service.service.turns import GaveWayError
from shared.errors import ExpectedError

logger = logging.getLogger(__name__)

STREAM_PATH = "/v1/augment/stream"
WORK_PATHS = ("/v1/augment", "/v1/candidates", STREAM_PATH)
KNOWN_PATHS = frozenset(
    {
        *WORK_PATHS,
        *PAGE_FILES,
        *("/openapi.json", "/healthz", "/readyz", "/metrics", "/info"),
    }
)
CLIENT_GONE_STATUS = 499
REQUEST_ID_HEADER = b"x-request-id"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
SECURITY_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]


@dataclass(frozen=True, slots=True, kw_only=True)
class MiddlewareSettings:
    """Limits that apply before a request is parsed.

    body_seconds: for the body to arrive. request_seconds: from then until the answer begins; streams are exempt.
    slow_seconds: log and count requests that take longer, except for streams. access_log: one log line per request,
    without texts or tokens. root_path: the path under which a proxy publishes the service, stripped from requests that
    still have it. only_loopback_hosts: reject every Host header but a loopback name (DNS-rebinding protection).
    sends_request_id: add X-Request-Id to responses; False if the server in front of the application does so.
    """

    max_body_bytes: int
    body_seconds: float
    request_seconds: float
    slow_seconds: float
    access_log: bool = False
    root_path: str = ""
    cors: Cors = field(default_factory=lambda: Cors(()))
    tracer: Tracer = field(default_factory=NoTracer)
    only_loopback_hosts: bool = False
    sends_request_id: bool = True


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
        path = self._without_root(scope)
        route = path if path in KNOWN_PATHS else "other"
        status = 0
        deadline, lease = self._deadlines.new(), self._gate.lease()
        request_id, token = _request_id(scope), None
        cors_headers = self._settings.cors.headers(scope)

        async def watched(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # A client that does not read its refusal must not keep the turn.
                lease.end_turn()
                ids = [(REQUEST_ID_HEADER, request_id)] if self._settings.sends_request_id else []
                message["headers"] = [*message["headers"], *SECURITY_HEADERS, *ids, *cors_headers]
                deadline.allow(None)
            await send(message)

        self._in_flight += 1
        self._metrics.in_flight.set(self._in_flight)
        traced = self._settings.tracer.request(scope["method"], route, scope)
        report_status = traced.__enter__()
        try:
            if self._settings.cors.is_preflight(scope):
                await self._settings.cors.allow(watched)
                return
            found = self._check(scope, path)
            async with deadline:
                if path in WORK_PATHS and scope["method"] == "POST":
                    if found is not None:
                        found.begin()
                        token = found
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
                # The message of an unexpected error may contain request text: log only its type and location.
                logger.error("request_failed", extra={"fields": _place(error, path) | {"id": request_id.decode()}})
            if not status:
                await self._refuse(self._problem(error, lease), scope, receive, watched)
            elif not isinstance(error, TimeoutError):
                raise
        finally:
            lease.release()
            if token is not None:
                token.end()
            self._in_flight -= 1
            self._metrics.in_flight.set(self._in_flight)
            report_status(status)
            traced.__exit__(None, None, None)
            self._note(_Served(scope["method"], route, status, time.perf_counter() - began, request_id, token))

    def _note(self, served: _Served) -> None:
        """Count a request, and log it if enabled."""
        self._metrics.answered(served.route, served.status, served.seconds)
        if served.token is not None:
            self._metrics.used_token(served.token.name)
        if served.seconds > self._settings.slow_seconds and served.route != STREAM_PATH:
            self._metrics.slow(served.route)
            logger.warning("slow_request", extra={"fields": served.fields()})
        if self._settings.access_log:
            logger.info("request", extra={"fields": served.fields()})

    def _without_root(self, scope: Any) -> str:
        """The path without the prefix that a proxy may have left on it."""
        root, path = self._settings.root_path, str(scope["path"])
        if root and (path == root or path.startswith(f"{root}/")):
            path = path.removeprefix(root) or "/"
            scope["path"], scope["raw_path"] = path, path.encode()
        return path

    def _check(self, scope: Any, path: str) -> Token | None:
        authorization = host = None
        for name, value in scope["headers"]:
            if name == b"authorization":
                authorization = value
            elif name == b"host":
                host = value
        if self._settings.only_loopback_hosts and not _is_loopback_host(host):
            raise _RefusedError(problems.problem(421, "without tokens, this service accepts only loopback host names"))
        if not self._access.needs_token or not (path in WORK_PATHS or path == "/metrics"):
            return None
        token = self._access.find(authorization)
        if token is None:
            detail = "this service requires a token: send the header Authorization: Bearer TOKEN"
            raise _RefusedError(problems.problem(401, detail, headers={"WWW-Authenticate": "Bearer"}))
        return token

    async def _admit(self, scope: Any, receive: Any, deadline: Deadline, lease: Lease) -> None:
        """Read the body into `scope["lease"]`; only then does the request take a slot."""
        settings = self._settings
        deadline.allow(settings.body_seconds)
        lease.body = await read_body(scope, receive, settings.max_body_bytes, lease)
        deadline.allow(settings.request_seconds)
        await lease.take_turn()
        lease.take_slot()
        # A stream has no time limit: the number of its texts is limited, and each of them is queued.
        if scope["path"] == STREAM_PATH:
            deadline.allow(None)
        scope["lease"] = lease

    def _problem(self, error: Exception, lease: Lease) -> Any:
        if isinstance(error, GaveWayError):
            response = problems.of_error(error)
            response.headers["Connection"] = "close"
            return response
        if not isinstance(error, TimeoutError):
            return problems.of_error(error)
        if self._deadlines.are_over:
            detail = "the service is shutting down and could not finish this request in time"
            return problems.problem(503, detail, headers={"Retry-After": "1"})
        if not lease.body and not lease.has_slot:
            detail = f"the body did not arrive within {self._settings.body_seconds:g} seconds"
            return problems.problem(408, detail)
        return problems.of_error(error)

    async def _refuse(self, response: Any, scope: Any, receive: Any, send: Any) -> None:
        self._metrics.rejected(_code_of(response))
        if response.status_code in (401, 408, 413, 415, 429):
            # The body may not have been read, and the rest of it must not be parsed as the next request.
            response.headers["Connection"] = "close"
        await response(scope, receive, send)


@dataclass(frozen=True, slots=True)
class _Served:
    """A finished request, without any of its content."""

    method: str
    route: str
    status: int
    seconds: float
    request_id: bytes
    token: Token | None

    def fields(self) -> dict[str, Any]:
        """Fields of a log line."""
        named = {"token": self.token.name} if self.token is not None else {}
        fields = {"method": self.method, "route": self.route, "status": self.status, "seconds": self.seconds}
        return fields | {"id": self.request_id.decode()} | named


class _RefusedError(Exception):
    def __init__(self, response: Any) -> None:
        super().__init__()
        self.response = response


def _code_of(response: Any) -> str:
    return str(orjson.loads(response.body)["code"])


def _request_id(scope: Any) -> bytes:
    """The request id sent by the client or a proxy if it is safe to log, else a new one."""
    for name, value in scope["headers"]:
        if name == REQUEST_ID_HEADER and _REQUEST_ID.fullmatch(value):
            return bytes(value)
    return b"%016x" % random.getrandbits(64)


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
