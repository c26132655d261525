"""The limit of open connections belongs to a server, not to the process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import uvicorn

from augment_service.service.connections import GuardedConfig


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


class Server(uvicorn.Server):
    """uvicorn's server, without its signal handlers."""

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        return contextlib.nullcontext()


@contextlib.asynccontextmanager
async def serving(max_connections: int) -> AsyncIterator[int]:
    """A server with its own limit; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(GuardedConfig(app, max_connections=max_connections, log_config=None, lifespan="off"))
        task = asyncio.create_task(server.serve([listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task


async def statuses(port: int, num_connections: int) -> list[str]:
    """The status of one request on each of several connections that stay open."""
    found, writers = [], []
    for _ in range(num_connections):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        found.append((await reader.readline()).split()[1].decode())
        writers.append(writer)
    for writer in writers:
        writer.close()
    return found


def test_two_servers_of_one_process_have_their_own_limits() -> None:
    async def run() -> None:
        async with serving(1) as tight, serving(3) as wide:
            assert await statuses(wide, 3) == ["204"] * 3
            assert await statuses(tight, 3) == ["204", "503", "503"]

    asyncio.run(run())
