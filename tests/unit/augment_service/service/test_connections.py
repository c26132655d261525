"""What one connection may cost: its headers, its share of open connections, and a client that does not read."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from augment_service.service import connections
from augment_service.service.connections import GuardedConfig
from augment_service.service.turns import Turns
from shared.errors import OverloadError

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def reading_app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the number of bytes in the body."""
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message["body"])
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % size})


class Server(uvicorn.Server):
    """uvicorn's server, without its signal handlers."""

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        return contextlib.nullcontext()


@contextlib.asynccontextmanager
async def serving(max_connections: int = 100, app: Any = app, turns: Turns | None = None) -> AsyncIterator[int]:
    """A server with its own limit; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = GuardedConfig(app, max_connections=max_connections, turns=turns, log_config=None, lifespan="off")
        server = Server(config)
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


async def answer_to(port: int, *parts: bytes) -> bytes:
    """Everything that the server sends until it closes, while the parts are sent as far as it reads them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send() -> None:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                writer.write(part)
                await writer.drain()

    sending = asyncio.create_task(send())
    answer = await asyncio.wait_for(reader.read(), 20)
    sending.cancel()
    writer.close()
    return answer


def problem_of(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head.lower(), answer[:300]
    document: dict[str, Any] = json.loads(body)
    assert head.startswith(b"HTTP/1.1 %d " % document["status"])
    return document


def test_large_requests_that_wait_to_be_parsed_make_room_for_a_small_one() -> None:
    """The newest of them is refused, and only once more connections are open than may have ended unnoticed."""
    turns, num_large = Turns(), 2 + connections.MAX_UNNOTICED

    async def app_with_turns(scope: Any, receive: Any, send: Any) -> None:
        status = 200
        if scope["path"] == "/large":
            try:
                await turns.take()
                turns.end()
            except OverloadError:
                status = 503
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def run() -> None:
        async with serving(2, app_with_turns, turns) as port:
            await turns.take()
            larges = []
            for number in range(1, num_large + 1):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
                larges.append((reader, writer))
                async with asyncio.timeout(10):
                    while turns.num_waiting < number:
                        await asyncio.sleep(0.005)
            assert await statuses(port, 1) == ["200"]
            turns.end()
            found = [(await asyncio.wait_for(reader.readline(), 10)).split()[1] for reader, _ in larges]
            assert found == [b"200"] * (num_large - 1) + [b"503"]
            for _, writer in larges:
                writer.close()

    asyncio.run(run())


def test_connections_that_only_wait_make_room_for_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies that stall, heads that stall, and idle connections; a request that is being answered stays."""
    monkeypatch.setattr(connections, "MIN_WAIT_SECONDS", 0.2)
    finish = asyncio.Event()

    async def slow_app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            await finish.wait()
        await reading_app(scope, receive, send)

    async def run() -> None:
        async with serving(4, slow_app) as port:
            sent = [b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n", HEAD + b"Content-Length: 9\r\n\r\nx", HEAD, b""]
            crowd = []
            for start in sent:
                crowd.append(await asyncio.open_connection("127.0.0.1", port))
                crowd[-1][1].write(start)
            assert await status(port) == "503", "those that have waited only for a moment stay"
            await asyncio.sleep(0.3)
            for _ in range(3):
                assert await status(port) == "200"
            stalled = await asyncio.wait_for(crowd[1][0].read(), 5)
            assert problem_of(stalled)["code"] == "overload"
            finish.set()
            assert (await crowd[0][0].readline()).split()[1] == b"200"
            for _, writer in crowd:
                writer.close()

    async def status(port: int) -> str:
        return (await statuses(port, 1))[0]

    asyncio.run(run())


def test_two_servers_of_one_process_have_their_own_limits() -> None:
    async def run() -> None:
        async with serving(1) as tight, serving(3) as wide:
            assert await statuses(wide, 3) == ["204"] * 3
            assert await statuses(tight, 3) == ["204", "503", "503"]

    asyncio.run(run())


@pytest.mark.parametrize(
    "start",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ",
        b"GET /",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;x=",
    ],
    ids=["header", "path", "trailer", "chunk extension"],
)
def test_headers_beyond_64_kb_are_refused_and_not_kept(start: bytes) -> None:
    sent = []

    def filler() -> Any:
        for _ in range(200):
            sent.append(1)
            yield b"x" * 1_000_000

    async def run() -> None:
        async with serving(app=reading_app) as port:
            document = problem_of(await answer_to(port, start, *filler()))
            assert (document["status"], document["code"]) == (431, "headers-too-large")

    asyncio.run(run())


def test_the_number_of_headers_is_limited() -> None:
    async def run() -> None:
        async with serving() as port:
            many = b"".join(b"X-%d: y\r\n" % number for number in range(connections.MAX_HEADERS))
            assert problem_of(await answer_to(port, HEAD + many + b"\r\n"))["status"] == 431
            few = b"".join(b"X-%d: y\r\n" % number for number in range(100))
            assert (await answer_to(port, HEAD + few + b"Connection: close\r\n\r\n")).startswith(b"HTTP/1.1 204")

    asyncio.run(run())


@pytest.mark.parametrize("size", [0, 1, 16_383, 16_384, 300_000, 3_000_000])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_bodies_of_any_size_pass_with_headers_of_48_kb(size: int, is_chunked: bool) -> None:
    head = HEAD + b"Connection: close\r\nX: " + b"x" * 48_000 + b"\r\n"
    if is_chunked:
        parts = [
            b"%x\r\n" % len(part) + part + b"\r\n" for part in (b"y" * (size // 2), b"y" * (size - size // 2)) if part
        ]
        message = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(parts) + b"0\r\n\r\n"
    else:
        message = head + b"Content-Length: %d\r\n\r\n" % size + b"y" * size

    async def run() -> None:
        async with serving(app=reading_app) as port:
            answer = await answer_to(port, message)
            assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
            assert b"\r\n%d\r\n" % size in answer

    asyncio.run(run())


@pytest.mark.parametrize(
    "message",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS handshake",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nnot a length\r\n",
    ],
)
def test_what_is_not_http_is_refused_with_a_problem_document(message: bytes) -> None:
    async def run() -> None:
        async with serving(app=reading_app) as port:
            document = problem_of(await answer_to(port, message))
            assert (document["status"], document["code"]) == (400, "not-http")

    asyncio.run(run())


def test_a_refusal_reaches_a_client_that_is_still_sending() -> None:
    async def refusing_app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 413, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": b"too large"})

    async def run() -> None:
        async with serving(app=refusing_app) as port:
            head = HEAD + b"Content-Length: 50000000\r\n\r\n"
            for _ in range(5):
                answer = await answer_to(port, head, *[b"x" * 1_000_000] * 50)
                assert answer.startswith(b"HTTP/1.1 413"), answer
                assert b"too large" in answer

    asyncio.run(run())


def test_pipelined_requests_are_answered_in_order_up_to_a_number() -> None:
    async def echo_app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.001)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode() + b";"})

    def ask(number: int) -> bytes:
        return b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number

    async def run() -> None:
        async with serving(app=echo_app) as port:
            last = ask(10).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
            answer = await answer_to(port, b"".join(map(ask, range(10))) + last)
            assert [part.split(b";")[0] for part in answer.split(b"/")[1:] if b";" in part] == [
                b"%d" % number for number in range(11)
            ]
            flood = await answer_to(port, b"".join(map(ask, range(5_000))))
            assert flood.count(b"HTTP/1.1 200") <= connections.MAX_PIPELINED + 1

    asyncio.run(run())


def test_a_client_that_does_not_read_loses_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "UNREAD_ANSWER_SECONDS", 0.3)
    ended: list[float] = []

    async def endless_app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        began = time.monotonic()
        while time.monotonic() < began + 10:
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
            if _is_gone(send):
                break
        ended.append(time.monotonic() - began)

    async def run() -> None:
        async with serving(app=endless_app) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reader.readline()
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            deadline = time.monotonic() + 8
            while not ended and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
            assert ended, "the application still waits for a client that does not read"
            writer.close()

    asyncio.run(run())


def _is_gone(send: Any) -> bool:
    return bool(send.__self__.disconnected)


def test_nothing_of_a_closed_connection_waits_for_the_garbage_collector() -> None:
    """Answered, cut off in the middle of a body, refused, or silent."""
    body = b"Content-Length: 400000\r\n\r\n" + b"x" * 200_000
    sent = [HEAD + b"Content-Length: 0\r\n\r\n", HEAD + body, b"no HTTP\r\n\r\n", b""]

    def num_alive() -> int:
        kinds = (connections.GuardedProtocol, RequestResponseCycle)
        return sum(type(one) in kinds for one in gc.get_objects())

    async def check() -> None:
        async with serving(app=reading_app) as port:
            for one in sent * 3:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(one)
                await writer.drain()
                if one not in (b"", HEAD + body):
                    await reader.read(1)
                writer.transport.abort()
            deadline = time.monotonic() + 10
            while num_alive() > before:
                assert time.monotonic() < deadline, num_alive()
                await asyncio.sleep(0.02)

    gc.collect()
    before = num_alive()
    gc.disable()
    try:
        asyncio.run(check())
    finally:
        gc.enable()
