"""A real service in its own process, on a free port of the loopback interface."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, Self

import httpx

from tests.support.command import ROOT

TOKEN = "a-token-of-the-tests-0123456789"


class Service:
    """`augment_service serve` with the given options; killed at the end of the `with` block."""

    def __init__(self, *options: str, log: Path, tokens: str = "") -> None:
        self._log = log
        environment = {name: value for name, value in os.environ.items() if name != "AUGMENT_SERVICE_TOKENS"}
        if tokens:
            environment["AUGMENT_SERVICE_TOKENS"] = tokens
        command = [sys.executable, "-m", "augment_service", "serve", "--port", "0", *options]
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)
        try:
            self.url = self._wait_for_url()
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    @property
    def log(self) -> str:
        """The log so far."""
        return self._log.read_text(encoding="utf-8")

    def client(self, token: str | None = None, **options: Any) -> httpx.Client:
        """An HTTP client for the service."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, **options)

    def wait_ready(self) -> Self:
        """Wait until /readyz answers 200."""
        deadline = time.monotonic() + 120
        with self.client() as client:
            while client.get("/readyz").status_code != 200:
                assert self.process.poll() is None, self.log
                assert time.monotonic() < deadline, self.log
                time.sleep(0.05)
        return self

    def stop(self) -> int:
        """Send SIGTERM, wait, and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def _wait_for_url(self) -> str:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.process.poll() is None:
            if found := re.search(r"listening url=(\S+)", self.log):
                url = found.group(1)
                try:
                    httpx.get(f"{url}/healthz", timeout=5)
                    return url
                except httpx.TransportError:
                    pass
            time.sleep(0.05)
        raise AssertionError(f"no service: {self.log}")

    def __enter__(self) -> Self:
        return self.wait_ready()

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)


class Logged(Protocol):
    """A server under test, of either kind."""

    @property
    def log(self) -> str:
        """The log so far."""
        ...


def wait_for_log(server: Logged, text: str) -> None:
    """Wait until the log has the text, which servers write after their answer."""
    wait_until(lambda: text in server.log, what=text)


def wait_until(is_so: Callable[[], bool], *, what: str = "it did not happen", seconds: float = 20.0) -> None:
    """Wait until it is so; fails after some time."""
    deadline = time.monotonic() + seconds
    while not (found := is_so()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found, what
