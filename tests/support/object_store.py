"""An S3 server for tests (moto, in its own process) behind a proxy that injects faults into a share of the requests.

The faults, drawn from a seeded generator: error 500, 503 SlowDown, a slow response, an upload whose connection breaks
before it reaches the server, an upload that arrives but whose response is lost, a download that is cut off.

    python -m tests.support.object_store SHARE    both, until standard input ends; prints their URLs
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from shared.storage.store import Store
from tests.support.ports import free_port

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
HOP_HEADERS = {"connection", "transfer-encoding", "content-length", "date", "server"}


@contextlib.contextmanager
def moto_server(log: Path) -> Iterator[str]:
    """The URL of a running S3 server."""
    port = free_port()
    code = "import sys; from moto.server import main; sys.exit(main(sys.argv[1:]))"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", code, "-H", "127.0.0.1", "-p", str(port)], stdout=file, stderr=file
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urlopen(f"{url}/moto-api/", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, "moto did not start"
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


def s3_client(url: str) -> Any:
    """A boto3 client of the server: what the tests look with from outside."""
    import boto3

    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    return boto3.client("s3", endpoint_url=url, **keys)


def check_one_writer_creates(store: Store, name: str) -> None:
    """Of several writers at once, exactly one creates the object, with its own content."""
    barrier = threading.Barrier(8)

    def create(number: int) -> bool:
        barrier.wait()
        return store.put_if_absent(name, str(number).encode())

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(8)))
    assert (sum(won), store.read(name)) == (1, str(won.index(True)).encode())


class FaultyProxy:
    """Forwards to `upstream`, with a fault in each request with probability `share`. `faults` counts them by kind."""

    def __init__(self, upstream: str, share: float, seed: int = 0) -> None:
        self.share, self.faults, self._turns = share, Counter[str](), Counter[str]()
        self._random, self._lock = random.Random(seed), threading.Lock()
        host, port = upstream.removeprefix("http://").split(":")
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _forward(self) -> None:
                body = self._body()
                proxy.hold(self.command, self.path)
                fault = proxy.draw(self.command, len(body) if body else 0)
                if fault in ("500", "503"):
                    return self._answer_error(int(fault))
                if fault == "slow":
                    time.sleep(0.5)
                if fault == "torn-upload":
                    return self._cut()
                connection = http.client.HTTPConnection(host, int(port), timeout=60)
                try:
                    dropped = ("expect", "transfer-encoding", "content-length")
                    headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
                    connection.request(self.command, self.path, body, proxy.translate(headers))
                    answer = connection.getresponse()
                    content = answer.read()
                finally:
                    connection.close()
                if fault == "lost-answer":
                    return self._cut()
                self.send_response(answer.status)
                length = len(content)
                for name, value in answer.getheaders():
                    if name.lower() == "content-length" and self.command == "HEAD":
                        length = int(value)
                    if name.lower() not in HOP_HEADERS:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                if fault == "torn-download":
                    self.wfile.write(content[: len(content) // 2])
                    return self._cut()
                if self.command != "HEAD":
                    self.wfile.write(content)
                return None

            def _body(self) -> bytes:
                if "chunked" in self.headers.get("Transfer-Encoding", ""):
                    body = b""
                    while True:
                        size = int(self.rfile.readline().split(b";")[0], 16)
                        body += self.rfile.read(size)
                        self.rfile.readline()
                        if size == 0:
                            return body
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))

            def _answer_error(self, status: int) -> None:
                code = {500: "InternalError", 503: "SlowDown"}[status]
                content = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Content-Type", "application/xml")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def _cut(self) -> None:
                self.close_connection = True
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)

            def log_message(self, format: str, *args: Any) -> None:
                pass

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _forward  # noqa: N815

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # the client closed the connection

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def hold(self, command: str, path: str) -> None:
        """Returns when a request may go on to `upstream`."""

    def translate(self, headers: dict[str, str]) -> dict[str, str]:
        """The headers of a request as `upstream` expects them."""
        return headers

    def draw(self, command: str, size: int) -> str:
        """The fault for a request; empty for none."""
        with self._lock:
            if self._random.random() >= self.share:
                return ""
            kinds = ["500", "503", "slow"]
            if command in ("PUT", "POST"):
                kinds = ["torn-upload", "lost-answer", *kinds] if size else ["lost-answer", *kinds]
            if command == "GET":
                kinds = ["torn-download", *kinds]
            # In turn, so that every kind occurs.
            turn = f"{command} of {len(kinds)} kinds"
            fault = kinds[self._turns[turn] % len(kinds)]
            self._turns[turn] += 1
            self.faults[fault] += 1
            return fault

    def __enter__(self) -> FaultyProxy:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def faulty_server(share: float) -> Iterator[tuple[str, str]]:
    """URLs of a server and of a proxy before it, in processes of their own: the caller has no thread and may fork."""
    command = [sys.executable, "-m", "tests.support.object_store", str(share)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout
    try:
        direct, faulty = json.loads(process.stdout.readline())
        yield direct, faulty
    finally:
        process.stdin.close()
        process.wait()


def _main(share: float) -> None:
    with (
        tempfile.TemporaryDirectory() as name,
        moto_server(Path(name) / "log") as url,
        FaultyProxy(url, share) as proxy,
    ):
        print(json.dumps([url, proxy.url]), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    _main(float(sys.argv[1]))
