"""The service on Ray Serve responds as it does under uvicorn, and no request fails when a replica is killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
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
@pytest.mark.parametrize("deployment", ["MaskedLM", "Ingress"])
def test_no_request_fails_when_a_replica_is_killed(cluster: ServeCluster, deployment: str) -> None:
    async def load() -> list[int]:
        async with AsyncClient(cluster.url, max_tries=12) as client:

            async def one(number: int) -> int:
                text = f"the quick brown fox number {number} of {deployment} jumps over a lazy dog"
                found = await client.augment([text], n_a=3, words="all")
                return len(found[0].samples)

            async def kill() -> None:
                await asyncio.sleep(1.0)
                pids = cluster.replica_pids(deployment)
                assert pids, "no replica was found"
                os.kill(pids[0], signal.SIGKILL)

            async def stream() -> list[int]:
                counts: list[int] = []
                for start in range(0, 400, 8):
                    counts += await asyncio.gather(*map(one, range(start, start + 8)))
                return counts

            counts, _ = await asyncio.gather(stream(), kill())
            return counts

    assert asyncio.run(load()) == [3] * 400
