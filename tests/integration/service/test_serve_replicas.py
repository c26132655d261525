"""What an operator sees and does on Ray Serve: the metrics of all replicas, and replicas that are stopped."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.integration.service.test_both_servers import serve_args
from tests.support.serve_cluster import ServeCluster
from tests.support.service import wait_until

BODY = {"texts": ["the quick brown fox"], "n_a": 1}
SHORT, LONG = 1, 60
HELD_SECONDS = 8.0
"""How long a request goes on after its replica was told to stop: longer than SHORT, less than Serve's default of 20."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cluster(model_options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeCluster]:
    args: dict[str, Any] = serve_args(model_options) | {"drain_seconds": SHORT, "body_seconds": 120}
    with ServeCluster(tmp_path_factory.mktemp("replicas"), args) as running:
        yield running


def test_ray_exports_the_metrics_of_every_replica(cluster: ServeCluster) -> None:
    with cluster.client() as client:
        assert client.post("/v1/augment", json=BODY).status_code == 200
        assert client.post("/v1/augment", json=BODY | {"k": 0}).status_code == 422

    def exported() -> str:
        with cluster.dashboard() as client:
            groups = client.get("/api/prometheus/sd").raise_for_status().json()
        texts = []
        for target in (target for group in groups for target in group["targets"]):
            # Ray lists a port before anything listens there.
            with contextlib.suppress(httpx.TransportError):
                texts.append(httpx.get(f"http://{target}/metrics", timeout=20).text)
        return "".join(texts)

    def is_exported(line: str, deployment: str, text: str) -> bool:
        found = re.findall(rf"^ray_augment_service_{line}$", text, re.MULTILINE)
        return any(f'deployment="{deployment}"' in one and "replica=" in one for one in found)

    def missing() -> list[str]:
        text = exported()
        return [line for line, deployment in lines if not is_exported(line, deployment, text)]

    lines = (
        (r"queue_wait_seconds_count\{.*\} [1-9].*", "MaskedLM"),
        (r"pass_tokens_bucket\{.*le=\"\+Inf\".*\} [1-9].*", "MaskedLM"),
        (r"queue_tokens\{.*\} 0.*", "MaskedLM"),
        (r"shares_passes\{.*\} [01].*", "MaskedLM"),
        (r"queue_words\{.*\} 0.*", "Glove"),
        (r"words_per_second\{.*\} [1-9].*", "Glove"),
        (r"ready\{.*\} 1.*", "Ingress"),
        (r"rejected_total\{.*code=\"invalid\".*\} [1-9].*", "Ingress"),
        (r"requests_total\{.*route=\"/v1/augment\".*status=\"200\".*\} [1-9].*", "Ingress"),
        (r"model_info\{.*model=\"glove\".*\} 1.*", "Ingress"),
    )
    # Replicas copy their metrics every few seconds, and Ray collects them as rarely.
    deadline = time.monotonic() + 90
    while missing() and time.monotonic() < deadline:
        time.sleep(1)
    assert missing() == []
    with cluster.client() as client:
        assert "augment_service_pass" not in client.get("/metrics").text


class Held:
    """A request that is in progress in a replica until `finish`, because the end of its body is still to come."""

    def __init__(self, cluster: ServeCluster, pool: ThreadPoolExecutor) -> None:
        self._begun, self._may_end, self._url = threading.Event(), threading.Event(), cluster.url
        self._result = pool.submit(self._send)
        assert self._begun.wait(20)
        # The first half has been written; it takes a moment until the replica has the request.
        time.sleep(1.0)

    def finish(self) -> int | None:
        """The status of the answer; None if the connection broke."""
        self._may_end.set()
        return self._result.result(100)

    def _send(self) -> int | None:
        body = json.dumps(BODY).encode()

        def halves() -> Iterator[bytes]:
            yield body[:9]
            self._begun.set()
            self._may_end.wait(200)
            yield body[9:]

        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        try:
            return httpx.post(f"{self._url}/v1/augment", content=halves(), headers=headers, timeout=100).status_code
        except httpx.TransportError:
            return None


def test_a_replica_that_is_stopped_finishes_its_requests_for_drain_seconds(cluster: ServeCluster) -> None:
    application = cluster.config["applications"][0]
    ingress = next(one for one in application["deployments"] if one["name"] == "Ingress")
    # Another share of a CPU replaces this deployment only, so that the request finds its models as they were.
    ingress["ray_actor_options"] = {"num_cpus": 0.2}
    assert status_while_replaced(cluster) != 200, f"finished, although it had {SHORT} s"
    cluster.wait_ready()
    application["args"]["drain_seconds"] = LONG
    cluster.deploy()
    wait_until(lambda: "RUNNING" not in cluster.replica_states("Ingress"), seconds=60)
    cluster.wait_ready()
    ingress["ray_actor_options"] = {"num_cpus": 0.1}
    assert status_while_replaced(cluster) == 200
    cluster.wait_ready()


def status_while_replaced(cluster: ServeCluster) -> int | None:
    """The status of a request that goes on for HELD_SECONDS after a deployment has begun to replace its replica."""

    def is_told() -> bool:
        return "STOPPING" in cluster.replica_states("Ingress") or not set(old) & set(cluster.replica_pids("Ingress"))

    with ThreadPoolExecutor(1) as pool:
        held, old = Held(cluster, pool), cluster.replica_pids("Ingress")
        try:
            cluster.deploy()
            wait_until(is_told, seconds=60)
            time.sleep(HELD_SECONDS)
        finally:
            status = held.finish()
    return status
