"""Bodies that do not arrive, answers that nobody reads, and answers that are too large: others are served."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from shared.embedded.wheels import embedded_glove_path
from tests.support.service import Service

SMALL = {"texts": ["the cat"], "n_a": 1}
STALLED = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{"
ROUTES = (b"/v1/augment", b"/v1/candidates", b"/v1/augment/stream")
WORDS = "the quick brown fox jumps over a lazy dog "


@pytest.fixture(scope="module")
def tight(model_options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with few slots, short time limits and little memory."""
    options = ["--max-requests", "4", "--body-seconds", "2", "--max-answer-bytes", "1000000"]
    options += ["--memory-budget", "16000000", "--queue-seconds", "100"]
    with Service(*model_options, *options, log=tmp_path_factory.mktemp("tight") / "log.txt") as running:
        yield running
        assert running.process.poll() is None, running.log


def connect(service: Service) -> socket.socket:
    host, port = service.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), 30)


def read_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def metric(service: Service, name: str) -> float:
    with service.client() as client:
        lines = client.get("/metrics").text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))


def resident_bytes(service: Service) -> int:
    status = Path(f"/proc/{service.process.pid}/status").read_text(encoding="utf-8")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) * 1024


def test_bodies_that_stall_hold_no_slot_and_are_answered_408(tight: Service) -> None:
    with ExitStack() as stack, tight.client() as client:
        stalled = [stack.enter_context(connect(tight)) for _ in range(60)]
        for number, connection in enumerate(stalled):
            connection.sendall(STALLED % ROUTES[number % len(ROUTES)])
        time.sleep(0.3)
        for _ in range(10):
            assert client.post("/v1/augment", json=SMALL).status_code == 200
        for connection in stalled:
            head, _, body = read_all(connection).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 408")
            assert b"application/problem+json" in head
            assert json.loads(body)["code"] == "body-timeout"


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/v1/candidates", {"texts": ["a b " * 2_000] * 2, "k": 100, "words": "all", "context": "unmasked"}),
        ("/v1/augment", {"texts": [WORDS * 20] * 8, "n_a": 100, "p_t": 1.0}),
        ("/v1/augment/stream", {"texts": [WORDS * 20] * 8, "n_a": 100, "p_t": 1.0}),
    ],
)
def test_an_answer_that_would_be_too_large_is_refused_before_any_work(
    tight: Service, route: str, body: dict[str, Any]
) -> None:
    before = metric(tight, "augment_service_pass_tokens_sum")
    with tight.client() as client:
        response = client.post(route, json=body)
    assert (response.status_code, response.json()["code"]) == (422, "limit")
    assert "more than the limit of 1.0 MB" in response.json()["detail"]
    assert metric(tight, "augment_service_pass_tokens_sum") == before


def test_the_stream_gives_in_parts_what_is_too_large_at_once(tight: Service) -> None:
    body = {"texts": [f"{WORDS * 4}number {number}" for number in range(40)], "n_a": 10, "p_t": 1.0}
    with tight.client() as client:
        assert client.post("/v1/augment", json=body).status_code == 422
        with client.stream("POST", "/v1/augment/stream", json=body) as response:
            assert response.status_code == 200
            lines = response.read().split(b"\n")[:-1]
    assert [json.loads(line)["id"] for line in lines] == list(range(40))


def test_requests_together_stay_within_the_memory_budget(tight: Service) -> None:
    """Each of them alone is answered; together they take more than there is, and the others are told to come back."""
    body = {"texts": [f"{WORDS * 8}number {number}" for number in range(4)], "n_a": 15, "p_t": 1.0, "k": 100}
    with tight.client() as client:
        assert client.post("/v1/augment", json=body).status_code == 200

    async def crowd() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=tight.url, timeout=60) as client:
            bodies = [body | {"texts": [f"{one} of {number}" for one in body["texts"]]} for number in range(4)]  # type: ignore[attr-defined]
            return list(await asyncio.gather(*(client.post("/v1/augment", json=one) for one in bodies)))

    responses = asyncio.run(crowd())
    refused = [one for one in responses if one.status_code == 503]
    assert refused
    assert len(refused) < len(responses)
    for one in refused:
        assert one.json()["code"] == "overload"
        assert int(one.headers["retry-after"]) >= 1
        assert "memory" in one.json()["detail"]
    assert metric(tight, "augment_service_reserved_bytes") == 0
    with tight.client() as client:
        assert client.post("/v1/augment", json=body).status_code == 200


def test_answers_that_nobody_reads_take_bounded_memory(service: Service) -> None:
    """Large answers from the cache, to clients that do not read: their text is in memory, their objects are not."""
    body = json.dumps({"texts": ["a b " * 1_500] * 8, "k": 100, "words": "all", "context": "unmasked"}).encode()
    head = b"POST /v1/candidates HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    request = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with service.client() as client:
        size = len(client.post("/v1/candidates", content=body, headers={"Content-Type": "application/json"}).content)
    before = resident_bytes(service)
    with ExitStack() as stack:
        for _ in range(6):
            connection = stack.enter_context(connect(service))
            connection.sendall(request)
        slowest, most = 0.0, 0
        with service.client() as client:
            until = time.monotonic() + 4
            while time.monotonic() < until:
                began = time.monotonic()
                assert client.get("/healthz").status_code == 200
                slowest = max(slowest, time.monotonic() - began)
                most = max(most, resident_bytes(service))
                time.sleep(0.01)
    assert most - before < 6 * size + 150_000_000
    assert slowest < 1.0


def test_closing_unread_streams_frees_their_slots(tight: Service) -> None:
    body = json.dumps({"texts": [f"{WORDS}{number}" for number in range(1_000)], "n_a": 40}).encode()
    head = b"POST /v1/augment/stream HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with ExitStack() as stack:
        for _ in range(4):
            connection = stack.enter_context(connect(tight))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        time.sleep(1.0)
        with tight.client() as client:
            response = client.post("/v1/augment", json=SMALL)
            assert (response.status_code, response.json()["code"]) == (503, "overload")
    wait_until_served(tight, 10)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_unread_streams_lose_their_slots(tight: Service) -> None:
    body = json.dumps({"texts": [f"{WORDS}{number}" for number in range(1_000)], "n_a": 40}).encode()
    head = b"POST /v1/augment/stream HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with ExitStack() as stack:
        for _ in range(4):
            connection = stack.enter_context(connect(tight))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        time.sleep(1.0)
        with tight.client() as client:
            assert client.post("/v1/augment", json=SMALL).status_code == 503
        wait_until_served(tight, 60)


def wait_until_served(service: Service, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    with service.client() as client:
        while client.post("/v1/augment", json=SMALL).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def rare_words() -> list[str]:
    """Words of the embedded vectors that no small vocabulary holds."""
    index = next(embedded_glove_path().glob("*index.parquet"))
    words = pq.read_table(index)["index"].slice(200_000, 50_000).to_pylist()
    return [word for word in words if re.fullmatch("[a-z]{5,8}", word)]


@pytest.mark.timeout(280)
def test_a_small_request_does_not_wait_for_words_of_the_vectors(model_options: list[str], tmp_path: Path) -> None:
    """Two texts of 1,000 words that only the vectors know, each of which takes a millisecond, and one of two words."""
    options = [*model_options, "--glove", "embedded", "--queue-seconds", "1000"]
    words = rare_words()
    with Service(*options, log=tmp_path / "log.txt") as service:
        done: list[float] = []

        def ask(*asked: str) -> None:
            with service.client() as client:
                body = {"texts": [" ".join(asked)], "k": 5, "words": "all"}
                assert client.post("/v1/candidates", json=body, timeout=200).status_code == 200
            done.append(time.monotonic())

        threads = [threading.Thread(target=ask, args=words[start : start + 1_000]) for start in (10, 1_010)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 30
        while metric(service, "augment_service_queue_words") < 100 and time.monotonic() < until:
            time.sleep(0.01)
        ask(*words[:2])
        finished = done[-1]
        for thread in threads:
            thread.join()
        assert len(done) == 3
        assert finished == min(done), "a request with two words waited for one with 1,000"


@pytest.mark.timeout(280)
def test_words_of_a_client_that_left_are_dropped(model_options: list[str], tmp_path: Path) -> None:
    options = [*model_options, "--glove", "embedded", "--queue-seconds", "1000"]
    words = rare_words()[2_010:]
    texts = [" ".join(words[start : start + 1_000]) for start in (0, 1_000, 2_000)]
    body = json.dumps({"texts": texts, "k": 5, "words": "all"}).encode()
    head = b"POST /v1/candidates HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with Service(*options, log=tmp_path / "log.txt") as service:
        with connect(service) as connection:
            connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            until = time.monotonic() + 30
            while metric(service, "augment_service_queue_words") < 1_500:
                assert time.monotonic() < until
                time.sleep(0.01)
        time.sleep(0.5)
        assert metric(service, "augment_service_queue_words") == 0
