"""The service on its own Ray, started by `serve run` with the repository's configuration."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from tests.support.command import ROOT, descendants_of
from tests.support.ports import free_port
from tests.support.ray_nodes import TOKEN_ENVIRONMENT


class ServeCluster:
    """`serve run` with deploy/serve/serve.yaml, but with other models, a free port, and `replicas` masked LMs.

    autoscaling: changes to the masked LM's autoscaling instead of a fixed number of replicas.
    """

    def __init__(
        self, folder: Path, args: dict[str, Any], replicas: int = 1, autoscaling: dict[str, Any] | None = None
    ) -> None:
        self.config = yaml.safe_load((ROOT / "deploy" / "serve" / "serve.yaml").read_text(encoding="utf-8"))
        port = free_port()
        self.config["http_options"]["port"] = port
        application = self.config["applications"][0]
        application["args"] = args
        for deployment in application["deployments"]:
            deployment["ray_actor_options"] = {"num_cpus": 0.1}
            if deployment["name"] == "MaskedLM":
                fixed = {"min_replicas": replicas, "max_replicas": replicas}
                deployment["autoscaling_config"] |= fixed if autoscaling is None else autoscaling
        path = folder / "serve.yaml"
        path.write_text(yaml.safe_dump(self.config), encoding="utf-8")
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder / "log.txt"
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        environment |= TOKEN_ENVIRONMENT | {"OMP_NUM_THREADS": "1"}
        command = [str(Path(sys.executable).parent / "serve"), "run", "--address", "local"]
        command += ["--app-dir", str(ROOT), str(path)]
        with self._log.open("wb") as file:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True
            )

    @property
    def log(self) -> str:
        """The output so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def client(self, token: str | None = None, **options: Any) -> httpx.Client:
        """An HTTP client for the service."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, **options)

    def dashboard(self) -> httpx.Client:
        """An HTTP client for Ray's dashboard, whose REST API `serve deploy` uses."""
        found = re.search(r"dashboard at .*?(http://127\.0\.0\.1:\d+)", self.log)
        assert found, self.log
        headers = {"Authorization": f"Bearer {TOKEN_ENVIRONMENT['RAY_AUTH_TOKEN']}"}
        return httpx.Client(base_url=found.group(1), headers=headers, timeout=60)

    def deploy(self) -> None:
        """Deploy `config` as it is now, as `serve deploy` does; returns before the replicas are there."""
        with self.dashboard() as client:
            client.put("/api/serve/applications/", json=self.config).raise_for_status()

    def replica_states(self, deployment: str) -> list[str]:
        """Ray's state of each replica, such as RUNNING or STOPPING."""
        with self.dashboard() as client:
            application = client.get("/api/serve/applications/").raise_for_status().json()["applications"]["augment"]
        found = application["deployments"].get(deployment, {"replicas": []})
        return [one["state"] for one in found["replicas"]]

    def replica_pids(self, deployment: str) -> list[int]:
        """Process ids of a deployment's replicas."""
        name = f"ServeReplica:augment:{deployment}"
        found = []
        for pid in descendants_of(self.process.pid):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if name in command:
                found.append(pid)
        return found

    def wait_ready(self) -> None:
        """Wait until the only state of all replicas is RUNNING, and /readyz answers 200."""
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200 and self._all_run():
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        raise AssertionError(f"no service: {self.log[-4000:]}")

    def _all_run(self) -> bool:
        return all(set(self.replica_states(one)) == {"RUNNING"} for one in ("Ingress", "MaskedLM", "Glove"))

    def __enter__(self) -> Self:
        try:
            self.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        started = [self.process.pid, *descendants_of(self.process.pid)]
        self.process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        for pid in started:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(30)
