"""Overload, time limits, disconnected clients, shutdown, and the client's use of Retry-After."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from augment_service.cli import main
from augment_service.service.client import AsyncClient, Client
from tests.support.command import run_command
from tests.support.service import Service

WORDS = ("quick", "brown", "fox", "jumps", "lazy", "dog", "cat", "near", "small", "river", "great", "movie", "plot")


def text_number(number: int) -> str:
    """A text per number, so that nothing is served from the cache."""
    return " ".join(WORDS[(number >> shift) % len(WORDS)] for shift in range(0, 40, 2))


def metric(service: Service, name: str) -> float:
    with service.client() as client:
        lines = client.get("/metrics").text.splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(f"{name} ")), 0.0)


def test_overload_is_refused_at_once_and_the_client_retries(model_options: list[str], tmp_path: Path) -> None:
    options = ["--queue-seconds", "0.05", "--max-requests", "12", "--batch-tokens", "64"]
    with Service(*model_options, *options, log=tmp_path / "log.txt") as service:

        async def crowd() -> tuple[list[httpx.Response], list[float]]:
            async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
                seconds = []

                async def one(number: int) -> httpx.Response:
                    began = time.monotonic()
                    response = await client.post("/v1/augment", json={"texts": [text_number(number * 977)], "n_a": 2})
                    seconds.append(time.monotonic() - began)
                    return response

                return list(await asyncio.gather(*map(one, range(90)))), seconds

        responses, _ = asyncio.run(crowd())
        refused = [one for one in responses if one.status_code == 503]
        assert refused
        assert {one.status_code for one in responses} == {200, 503}
        assert all(int(one.headers["retry-after"]) >= 1 and one.json()["code"] == "overload" for one in refused)

        async def patient() -> list[int]:
            async with AsyncClient(service.url, max_tries=60) as client:
                found = await asyncio.gather(*(client.augment([text_number(5 + 31 * i)], n_a=1) for i in range(40)))
                return [len(one) for one in found]

        assert asyncio.run(patient()) == [1] * 40


def test_work_of_a_disconnected_client_is_dropped(service: Service) -> None:
    texts = [text_number(i * 131 + 7) * 3 for i in range(60)]
    body = {"texts": texts, "n_a": 1, "words": "all", "context": "pair"}
    before = metric(service, "augment_service_pass_tokens_sum")
    with service.client() as client, pytest.raises(httpx.ReadTimeout):
        client.post("/v1/augment", json=body, timeout=0.15)
    deadline = time.monotonic() + 20
    while metric(service, "augment_service_queue_tokens") > 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    asked = sum(3 * 20 * (3 * 20 + 3) * 2 for _ in texts)
    tokens = metric(service, "augment_service_pass_tokens_sum")
    time.sleep(0.2)
    assert metric(service, "augment_service_pass_tokens_sum") == tokens
    assert tokens - before < asked
    with service.client() as client:
        metrics = client.get("/metrics").text
    assert 'augment_service_requests_total{route="/v1/augment",status="499"}' in metrics


def test_a_large_request_does_not_starve_small_ones(service: Service) -> None:
    large = {"texts": [text_number(i * 57 + 3) * 3 for i in range(64)], "n_a": 1, "words": "all", "seed": 3}
    done: list[float] = []

    def ask_large() -> None:
        with service.client() as client:
            assert client.post("/v1/augment", json=large).status_code == 200
            done.append(time.monotonic())

    thread = threading.Thread(target=ask_large)
    thread.start()
    time.sleep(0.1)
    with Client(service.url, max_tries=200) as client:
        for number in range(5):
            client.augment([f"the lazy cat number {number}"], n_a=1)
    finished = time.monotonic()
    thread.join()
    assert finished < done[0], "five small requests waited for the large one"


def test_a_request_beyond_the_time_limit_is_answered_504(model_options: list[str], tmp_path: Path) -> None:
    options = ["--request-seconds", "0.2", "--queue-seconds", "100"]
    with Service(*model_options, *options, log=tmp_path / "log.txt") as service, service.client() as client:
        body = {"texts": [text_number(i) * 4 for i in range(64)], "n_a": 1, "words": "all", "context": "pair"}
        response = client.post("/v1/augment", json=body)
        assert (response.status_code, response.json()["code"]) == (504, "timeout")
        assert "retry-after" not in response.headers
        assert client.post("/v1/augment", json={"texts": ["the cat"], "n_a": 1}).status_code == 200


def test_sigterm_finishes_requests_in_flight_and_exits_with_0(model_options: list[str], tmp_path: Path) -> None:
    with Service(*model_options, "--queue-seconds", "100", log=tmp_path / "log.txt") as service:
        answers: list[int] = []

        def ask(number: int) -> None:
            body = {"texts": [text_number(i * 91 + number) * 3 for i in range(12)], "n_a": 1, "words": "all"}
            with service.client() as client:
                answers.append(client.post("/v1/augment", json=body).status_code)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 20
        while metric(service, "augment_service_requests_in_flight") < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        service.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert answers == [200] * 4
        assert service.process.wait(30) == 0
        assert "draining" in service.log
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{service.url}/healthz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0 can be reached from other machines"),
        (["--host", "not-a-host.invalid", "--allow-without-token"], "--host not-a-host.invalid"),
        (["--token-file", "gone"], "--token-file gone: No such file"),
        (["--port", "70000"], "--port"),
    ],
)
def test_invalid_options_are_refused_before_any_model_is_loaded(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AUGMENT_SERVICE_TOKENS", raising=False)
    assert main(["serve", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_short_token_and_a_taken_port_are_refused(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    port = service.url.rpartition(":")[2]
    taken = run_command("serve", "--port", port)
    assert taken.returncode == 2
    assert f"--port {port}: Address already in use" in taken.stderr
    monkeypatch.setenv("AUGMENT_SERVICE_TOKENS", "short-secret")
    refused = run_command("serve", "--port", "0")
    assert refused.returncode == 2
    assert "AUGMENT_SERVICE_TOKENS: token 1: a token must be 16 or more" in refused.stderr
    assert "short-secret" not in refused.stderr
