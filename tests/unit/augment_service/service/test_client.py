"""The Python client: which errors it retries, how it parses a stream, and that both clients behave alike."""

from __future__ import annotations

import asyncio
import http.server
import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from augment_service.service.client import AsyncClient, Client, ServiceError
from augment_service.service.client_calls import LineBuffer
from augment_service.service.responses import TextSamples

PROBLEM = {"type": "about:blank", "title": "Internal error", "status": 500, "detail": "a bug", "code": "internal"}
LINE = b'{"id":0,"samples":[]}\n'


@contextmanager
def answering(status: int, body: bytes) -> Iterator[tuple[str, list[str]]]:
    """A server that gives the same answer to every POST: its address, and the paths of the requests so far."""
    paths: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            paths.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", paths
    finally:
        server.shutdown()
        server.server_close()


def augment(url: str) -> None:
    with Client(url, max_tries=3) as client:
        client.augment(["a good film"])


def augment_stream(url: str) -> list[TextSamples]:
    with Client(url, max_tries=3) as client:
        return list(client.augment_stream(["a good film"]))


def augment_async(url: str) -> None:
    async def run() -> None:
        async with AsyncClient(url, max_tries=3) as client:
            await client.augment(["a good film"])

    asyncio.run(run())


def augment_stream_async(url: str) -> list[TextSamples]:
    async def run() -> list[TextSamples]:
        async with AsyncClient(url, max_tries=3) as client:
            return [one async for one in client.augment_stream(["a good film"])]

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("status", "body", "tries"),
    [
        (500, b"Internal Server Error", 3),  # a proxy whose replica died
        (502, b"<html>", 3),
        (
            504,
            json.dumps(PROBLEM | {"status": 504, "code": "timeout"}).encode(),
            1,
        ),  # the same work would take as long again
        (504, b"<html>", 3),  # a proxy that lost its replica
        (500, json.dumps(PROBLEM).encode(), 1),  # an error of the service itself: it would happen again
        (404, b"not here", 1),
    ],
)
def test_only_errors_that_another_replica_may_not_have_are_retried(status: int, body: bytes, tries: int) -> None:
    for call, path in (
        (augment, "/v1/augment"),
        (augment_async, "/v1/augment"),
        (augment_stream, "/v1/augment/stream"),
        (augment_stream_async, "/v1/augment/stream"),
    ):
        with answering(status, body) as (url, paths), pytest.raises(ServiceError) as caught:
            call(url)
        assert caught.value.status == status
        assert paths == [path] * tries


def test_a_problem_in_a_stream_is_raised() -> None:
    for call in (augment_stream, augment_stream_async):
        with (
            answering(200, LINE + json.dumps(PROBLEM, separators=(",", ":")).encode() + b"\n") as (url, paths),
            pytest.raises(ServiceError, match="the stream ended early: a bug") as caught,
        ):
            call(url)
        assert caught.value.status == 500
        assert len(paths) == 1


def test_both_clients_parse_a_stream_alike() -> None:
    with answering(200, LINE * 3) as (url, _):
        assert augment_stream(url) == augment_stream_async(url) == [TextSamples(id=0, samples=[])] * 3


def test_only_line_feeds_end_a_line() -> None:
    whole = "a\u2028b\x85c\n\r\x0bd\n".encode()
    rng = random.Random(1)
    for _ in range(20):
        lines, found, place = LineBuffer(), list[bytes](), 0
        while place < len(whole):
            step = rng.randrange(1, 4)
            found += lines.add(whole[place : place + step])
            place += step
        assert found == ["a\u2028b\x85c".encode(), b"\r\x0bd"]
