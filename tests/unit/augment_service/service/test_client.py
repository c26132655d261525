"""What the client sends again: only what another replica, or the same one later, may answer."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from augment_service.service.client import Client, ServiceError

PROBLEM = {"type": "about:blank", "title": "Internal error", "status": 500, "detail": "a bug", "code": "internal"}


@contextmanager
def answering(status: int, body: bytes) -> Iterator[tuple[str, list[str]]]:
    """A server that gives every POST one answer; its address, and the paths that it was asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "tries"),
    [
        (500, b"Internal Server Error", 3),  # a proxy whose replica died
        (502, b"<html>", 3),
        (500, json.dumps(PROBLEM).encode(), 1),  # the service's own fault: it would fail again
        (404, b"not here", 1),
    ],
)
def test_errors_without_a_problem_of_the_service_are_tried_again(status: int, body: bytes, tries: int) -> None:
    with (
        answering(status, body) as (url, asked),
        Client(url, max_tries=3) as client,
        pytest.raises(ServiceError) as caught,
    ):
        client.augment(["a good film"])
    assert caught.value.status == status
    assert asked == ["/v1/augment"] * tries
