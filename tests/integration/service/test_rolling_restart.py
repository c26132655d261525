"""A replica that is stopped or killed under load: with the client's retries no request fails."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from augment_service import Client
from tests.support.service import Service


class Balancer:
    """A TCP proxy in front of several services: a connection goes to the next one that accepts it."""

    def __init__(self, urls: list[str]) -> None:
        self._addresses = [url.removeprefix("http://").split(":") for url in urls]
        self._next = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in self._addresses:
            self._next += 1
            host, port = self._addresses[self._next % len(self._addresses)]
            with contextlib.suppress(OSError):
                theirs, ours = await asyncio.open_connection(host, int(port))
                with contextlib.suppress(OSError):
                    await asyncio.gather(_copy(reader, ours), _copy(theirs, writer))
                break
        writer.close()

    def __enter__(self) -> Balancer:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@contextlib.contextmanager
def load(url: str, clients: int, failures: list[str], answers: list[int]) -> Iterator[None]:
    is_over = threading.Event()

    def ask(number: int) -> None:
        with Client(url, max_tries=8, timeout_seconds=60) as client:
            turn = 0
            while not is_over.is_set():
                turn += 1
                try:
                    found = client.augment([f"the quick brown fox number {number} {turn}"] * 3, n_a=2, seed=turn)
                    answers.append(len(found))
                except Exception as error:
                    failures.append(repr(error))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_no_request_fails_when_a_replica_ends_under_load(
    how: signal.Signals, model_options: list[str], tmp_path: Path
) -> None:
    with (
        Service(*model_options, log=tmp_path / "one.txt") as one,
        Service(*model_options, log=tmp_path / "two.txt") as two,
        Balancer([one.url, two.url]) as balancer,
    ):
        failures: list[str] = []
        answers: list[int] = []
        with load(f"http://127.0.0.1:{balancer.port}", 6, failures, answers):
            time.sleep(2)
            before = len(answers)
            one.process.send_signal(how)
            assert one.process.wait(30) == (0 if how == signal.SIGTERM else -how)
            time.sleep(2)
        assert failures == []
        assert before > 0
        assert len(answers) > before
        assert set(answers) == {3}
        assert two.process.poll() is None
