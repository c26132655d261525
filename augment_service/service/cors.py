"""Cross-origin requests: which web pages of other origins may call the service from a browser."""

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
    """The origins that the operator listed. Without any, no header is ever added."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(one.encode() for one in origins)

    def headers(self, scope: Any) -> list[tuple[bytes, bytes]]:
        """Headers of every answer, refusals included: without them a page could not read why it was refused."""
        if not self._origins:
            return []
        varies = (b"vary", b"origin")
        origin = _header(scope, b"origin")
        if origin not in self._origins:
            return [varies]
        return [varies, (b"access-control-allow-origin", origin), _EXPOSED]

    def is_preflight(self, scope: Any) -> bool:
        """Whether a browser asks if a page of a listed origin may send its request. It never sends a token then."""
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
