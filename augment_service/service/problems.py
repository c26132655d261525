"""Errors -> problem documents (RFC 9457)."""

from __future__ import annotations

import math
from http import HTTPStatus

import orjson
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from augment_service.service.limits import LimitError
from augment_service.service.tokens import TokenLimitError
from shared.errors import ExpectedError, OverloadError

PROBLEM_TYPE = "application/problem+json"
CODES = {
    400: "not-json",
    401: "unauthorized",
    404: "not-found",
    405: "method-not-allowed",
    408: "body-timeout",
    413: "body-too-large",
    415: "not-json",
    421: "wrong-host",
    422: "invalid",
    429: "token-limit",
    431: "headers-too-large",
    503: "unavailable",
    504: "timeout",
}
_MAX_ERRORS = 10


def problem(
    status: int,
    detail: str,
    code: str | None = None,
    errors: list[dict[str, str]] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """A response with a problem document."""
    return Response(
        problem_bytes(status, detail, code, errors),
        status,
        headers={"Cache-Control": "no-store"} | (headers or {}),
        media_type=PROBLEM_TYPE,
    )


def problem_bytes(
    status: int, detail: str, code: str | None = None, errors: list[dict[str, str]] | None = None
) -> bytes:
    """The document itself, as JSON."""
    return orjson.dumps(
        {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
            "code": code or CODES.get(status, "internal" if status >= 500 else "refused"),
            "errors": errors or [],
        }
    )


def problem_message(status: int, detail: str, code: str | None = None, headers: dict[str, str] | None = None) -> bytes:
    """A raw HTTP/1.1 response with a problem document and `Connection: close`, for refusals outside the application."""
    body = problem_bytes(status, detail, code)
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Content-Type: {PROBLEM_TYPE}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    lines += [f"Content-Length: {len(body)}", "Cache-Control: no-store", "Connection: close", "", ""]
    return "\r\n".join(lines).encode() + body


def of_error(error: Exception) -> Response:
    """The response for an error. An unexpected error is a bug; its message may hold user data and is not shown."""
    if isinstance(error, OverloadError):
        headers = {"Retry-After": str(math.ceil(error.retry_after_seconds))}
        return problem(503, str(error), "overload", headers=headers)
    if isinstance(error, TokenLimitError):
        headers = {"Retry-After": str(math.ceil(error.retry_after_seconds))}
        return problem(429, str(error), headers=headers)
    if isinstance(error, LimitError):
        return problem(422, f"{error.pointer}: {error}", "limit", [{"pointer": error.pointer, "detail": str(error)}])
    if isinstance(error, TimeoutError):
        # No Retry-After: the same work would take as long again.
        return problem(504, "the request exceeded its time limit; send fewer texts at once, or use the streaming route")
    if isinstance(error, ExpectedError):
        headers = {"Retry-After": "5"} if error.http_status == 503 else {}
        return problem(error.http_status, str(error), headers=headers)
    return problem(500, "internal error; see the service's log", "internal")


async def http_problem(request: Request, error: Exception) -> Response:
    """Exception handler: the response for an unknown path or method."""
    assert isinstance(error, HTTPException)
    details = {404: "this path does not exist", 405: "this path does not support this method"}
    headers = dict(error.headers) if error.headers else {}
    return problem(error.status_code, details.get(error.status_code, str(error.detail)), headers=headers)


def of_validation(error: ValidationError) -> Response:
    """The validation errors of a body, each with its JSON pointer. The body itself is not echoed."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    if faults[0]["type"] == "json_invalid":
        return problem(400, f"the body is not valid JSON: {faults[0]['msg'].removeprefix('Invalid JSON: ')}")
    errors = [
        {"pointer": "/" + "/".join(_step(part) for part in fault["loc"]), "detail": fault["msg"]}
        for fault in faults[:_MAX_ERRORS]
    ]
    return problem(422, f"{errors[0]['pointer']}: {errors[0]['detail']}", errors=errors)


def _step(part: str | int) -> str:
    # These names come from the client, so their length is limited.
    return str(part)[:80].replace("~", "~0").replace("/", "~1")
