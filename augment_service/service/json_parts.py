"""Responses sent in parts, as fast as the client reads them, and compressed if the client accepts it."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator
from typing import Any

from fastapi.responses import Response

_SENT_BYTES = 65_536
"""Bytes passed to the connection at a time."""
_SMALLEST_COMPRESSED = 2_048
"""A shorter response fits into a few packets anyway."""
_LEVEL = 1
"""Fast: a part takes 0.5 ms of the event loop. Higher levels take three times as long and save 15% more."""
_GZIP = 31


class JsonParts(Response):
    """`{"results": [...]}` from parts that are already JSON; each part is freed once it is sent."""

    media_type = "application/json"

    def __init__(self, parts: deque[bytes], *, may_compress: bool) -> None:
        self._parts = parts
        super().__init__()
        size = sum(map(len, parts)) + max(len(parts) - 1, 0) + len(b'{"results":[]}')
        self._compresses = may_compress and size >= _SMALLEST_COMPRESSED
        if self._compresses:
            del self.headers["content-length"]
            self.headers["content-encoding"] = "gzip"
        else:
            self.headers["content-length"] = str(size)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the response. Waits whenever the client has not read the previous part."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP) if self._compresses else None
        body = b""
        for part in self._pieces():
            if body:
                await send({"type": "http.response.body", "body": body, "more_body": True})
            body = packer.compress(part) if packer else part
        await send({"type": "http.response.body", "body": body + packer.flush() if packer else body})

    def _pieces(self) -> Iterator[bytes]:
        pending, size = [b'{"results":['], 0
        while self._parts:
            part = self._parts.popleft()
            for start in range(0, len(part), _SENT_BYTES):
                pending.append(part[start : start + _SENT_BYTES])
                size += len(pending[-1])
                if size >= _SENT_BYTES:
                    yield b"".join(pending)
                    pending, size = [], 0
            if self._parts:
                pending.append(b",")
        yield b"".join([*pending, b"]}"])


def accepts_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding header allows gzip."""
    for one in accepted.lower().split(","):
        name, _, weight = one.partition(";")
        if name.strip() in ("gzip", "*"):
            return weight.strip().removeprefix("q=") not in ("0", "0.0", "0.00", "0.000")
    return False
