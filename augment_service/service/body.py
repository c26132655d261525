"""Read request bodies with a size limit, and cancel work when the client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from starlette.requests import Request

from augment_service.service.admission import Lease
from shared.errors import ExpectedError

Found = TypeVar("Found")


class BodyError(ExpectedError):
    """A body that is too large (413) or has an unsupported media type (415)."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, status)
        self.http_status = status


class ClientGoneError(Exception):
    """The client disconnected before its response was ready."""


async def read_body(scope: Any, receive: Any, max_bytes: int, lease: Lease) -> bytes:
    """The unparsed JSON body, accounted for in `lease`. Raises BodyError, OverloadError, ClientGoneError."""
    headers = dict(scope["headers"])
    if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != b"application/json":
        raise BodyError("the body must be JSON, sent with Content-Type: application/json", 415)
    too_large = BodyError(f"the body is longer than {max_bytes} bytes; send fewer texts per request", 413)
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or len(length) > 18 or int(length) > max_bytes:
        raise too_large
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes:
            raise too_large
        lease.hold_body(size)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


async def while_connected(request: Request, work: Awaitable[Found]) -> Found:
    """The result of `work`, which is cancelled when the client disconnects. Raises ClientGoneError."""
    task = asyncio.ensure_future(work)
    # Work that needs no model finishes within one iteration of the event loop, so it needs no watcher.
    await asyncio.sleep(0)
    if task.done():
        return task.result()
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
