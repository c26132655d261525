"""The service on Ray Serve responds as it does under uvicorn, and no request fails when a replica is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from augment_service.service.client import AsyncClient, Client
from tests.integration.service.test_answers import SETTINGS, SWITCHES, TEXTS
from tests.support.serve_cluster import ServeCluster
from tests.support.service import Service

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(model_options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeCluster]:
    args: dict[str, Any] = {"threads": 1}
    for name, value in zip(model_options[::2], model_options[1::2], strict=True):
        args.setdefault(name.removeprefix("--"), value)
    with ServeCluster(tmp_path_factory.mktemp("serve"), args, replicas=2) as running:
        yield running


@pytest.mark.timeout(400)
def test_responses_equal_those_under_uvicorn(cluster: ServeCluster, service: Service) -> None:
    with Client(cluster.url) as one, Client(service.url) as other:
        for switches in SWITCHES:
            params = SETTINGS | switches
            assert one.augment([*TEXTS, TEXTS[:2]], **params) == other.augment([*TEXTS, TEXTS[:2]], **params)
        assert one.candidates(TEXTS, k=4) == other.candidates(TEXTS, k=4)
        streamed = list(one.augment_stream(TEXTS, **SETTINGS))
        assert streamed == other.augment(TEXTS, **SETTINGS)
    with service.client() as plain:
        ours, theirs = plain.get("/openapi.json").json(), httpx.get(f"{cluster.url}/openapi.json").json()
        assert ours["paths"] == theirs["paths"]
        bad = [{}, {"texts": []}, {"texts": ["a"], "n_a": 10**9}]
        for body in bad:
            answer = httpx.post(f"{cluster.url}/v1/augment", json=body)
            assert answer.json() == plain.post("/v1/augment", json=body).json()
        refused = httpx.post(f"{cluster.url}/v1/augment", content=b"{", headers={"Content-Type": "application/json"})
        assert (refused.status_code, refused.json()["code"]) == (400, "not-json")
        assert httpx.get(f"{cluster.url}/").text == plain.get("/").text


@pytest.mark.timeout(400)
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("deployment", ["MaskedLM", "Ingress"])
def test_no_request_fails_when_a_replica_is_killed(cluster: ServeCluster, deployment: str, how: signal.Signals) -> None:
    async def load() -> list[int]:
        async with AsyncClient(cluster.url, max_tries=12) as client:

            async def one(number: int) -> int:
                text = f"the quick brown fox number {number} of {deployment} {how.name} jumps over a lazy dog"
                found = await client.augment([text], n_a=3, words="all")
                return len(found[0].samples)

            async def kill() -> None:
                await asyncio.sleep(1.0)
                pids = cluster.replica_pids(deployment)
                assert pids, "no replica was found"
                os.kill(pids[0], how)

            async def stream() -> list[int]:
                counts: list[int] = []
                for start in range(0, 400, 8):
                    counts += await asyncio.gather(*map(one, range(start, start + 8)))
                return counts

            counts, _ = await asyncio.gather(stream(), kill())
            return counts

    assert asyncio.run(load()) == [3] * 400


@pytest.mark.timeout(400)
def test_a_request_of_many_texts_is_admitted_or_refused_as_a_whole(cluster: ServeCluster) -> None:
    async def one(client: httpx.AsyncClient, number: int) -> tuple[int, int]:
        texts = [f"the quick brown fox {number} {text} jumps over a lazy dog near the river" for text in range(60)]
        answer = await client.post("/v1/augment", json={"texts": texts, "n_a": 1, "words": "all"}, timeout=300)
        return answer.status_code, len(answer.json().get("results", []))

    async def load() -> list[tuple[int, int]]:
        async with httpx.AsyncClient(base_url=cluster.url) as client:
            return await asyncio.gather(*(one(client, number) for number in range(24)))

    found = asyncio.run(load())
    assert set(found) <= {(200, 60), (503, 0)}
    assert (200, 60) in found


@pytest.mark.timeout(600)
def test_replicas_are_added_under_load_and_removed_afterwards(
    model_options: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    args: dict[str, Any] = {"threads": 1, "cache_bytes": 0}
    for name, value in zip(model_options[::2], model_options[1::2], strict=True):
        args.setdefault(name.removeprefix("--"), value)
    autoscaling = {
        "min_replicas": 1,
        "max_replicas": 2,
        "target_ongoing_requests": 1,
        "upscale_delay_s": 1,
        "downscale_delay_s": 3,
        "look_back_period_s": 2,
        "metrics_interval_s": 1,
    }

    scaling = ServeCluster(tmp_path_factory.mktemp("scale"), args, autoscaling=autoscaling)

    def replicas() -> int:
        return len(scaling.replica_pids("MaskedLM"))

    async def load_until(is_enough: Callable[[], bool]) -> None:
        async def client_loop(client: AsyncClient, number: int) -> None:
            count = 0
            while not is_enough():
                count += 1
                await client.augment([f"the quick brown fox {number} {count} jumps over a lazy dog"] * 4, words="all")

        async with AsyncClient(scaling.url, max_tries=20) as client:
            await asyncio.wait_for(asyncio.gather(*(client_loop(client, number) for number in range(12))), 200)

    with scaling:
        assert replicas() == 1
        asyncio.run(load_until(lambda: replicas() == 2))
        deadline = time.monotonic() + 120
        while replicas() > 1:
            assert time.monotonic() < deadline, "the second replica stayed"
            time.sleep(0.5)
        with Client(scaling.url) as client:
            assert client.augment(["a good film"], n_a=1)
