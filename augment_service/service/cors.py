"""CORS: which other origins may call the service from a browser."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_PREFLIGHT = [
    (b"access-control-allow-methods", b"GET, POST"),
    (b"access-control-allow-headers", b"authorization, content-type, x-request-id"),
    (b"access-control-max-age", b"600"),
    (b"content-length", b"0"),
]
_EXPOSED = (b"access-control-expose-headers", b"retry-after, x-request-id")


class Cors:
    """The allowed origins. Without any, no headers are added."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(one.encode() for one in origins)

    def headers(self, scope: Any) -> list[tuple[bytes, bytes]]:
        """Headers of every response, including refusals: without them a page could not read the reason."""
        if not self._origins:
            return []
        varies = (b"vary", b"origin")
        origin = _header(scope, b"origin")
        if origin not in self._origins:
            return [varies]
        return [varies, (b"access-control-allow-origin", origin), _EXPOSED]

    def is_preflight(self, scope: Any) -> bool:
        """Whether this is a preflight request from an allowed origin. Browsers send it without a token."""
        if scope["method"] != "OPTIONS" or not self._origins:
            return False
        return _header(scope, b"origin") in self._origins and bool(_header(scope, b"access-control-request-method"))

    @staticmethod
    async def allow(send: Any) -> None:
        """Answer a preflight request."""
        await send({"type": "http.response.start", "status": 204, "headers": list(_PREFLIGHT)})
        await send({"type": "http.response.body", "body": b""})


def _header(scope: Any, name: bytes) -> bytes:
    return next((value for one, value in scope["headers"] if one == name), b"")
