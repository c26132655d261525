"""Ray clusters of several killable nodes on this machine, made by Ray's test cluster or by `ray start`.

All of them listen on localhost only, on free ports, require a token, and are ended by process id.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from tests.support.command import descendants_of
from tests.support.ports import free_port

TOKEN = "0123456789abcdef0123456789abcdef"
STORE_BYTES = 80 << 20
TOKEN_ENVIRONMENT = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}


def kill(pids: list[int]) -> None:
    """Send SIGKILL to those that still exist."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class Nodes(Protocol):
    """A head that does no work, and nodes with one CPU each."""

    address: str

    def add(self) -> None:
        """Start another node."""
        ...

    def root_pids(self) -> list[int]:
        """For each working node, the process that its workers descend from."""
        ...

    def kill_node(self, index: int) -> list[int]:
        """SIGKILL a node with all its processes; returns their ids."""
        ...

    def mend(self) -> int:
        """Start a node for each that ended by itself, for instance because its agent was killed; returns how many."""
        ...

    def close(self) -> None:
        """End everything."""
        ...


class TestCluster:
    """`ray.cluster_utils.Cluster`: raylets are children of this process."""

    __test__ = False

    def __init__(self, num_nodes: int) -> None:
        os.environ.update(TOKEN_ENVIRONMENT)
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": STORE_BYTES}
        )
        self._nodes: list[Any] = []
        self.address = str(self._cluster.address)
        for _ in range(num_nodes):
            self.add()

    def add(self) -> None:
        """Start another node."""
        self._nodes.append(self._cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES))

    def root_pids(self) -> list[int]:
        """The raylets."""
        return [int(node.all_processes["raylet"][0].process.pid) for node in self._nodes]

    def kill_node(self, index: int) -> list[int]:
        """SIGKILL a raylet and all its workers."""
        raylet = self.root_pids()[index]
        pids = [raylet, *descendants_of(raylet)]
        kill(pids)
        self._cluster.remove_node(self._nodes.pop(index), allow_graceful=False)
        return pids

    def mend(self) -> int:
        """Start a node for each whose raylet has ended."""
        gone = [node for node in self._nodes if node.all_processes["raylet"][0].process.poll() is not None]
        for node in gone:
            self._nodes.remove(node)
            self._cluster.remove_node(node, allow_graceful=False)
            self.add()
        return len(gone)

    def close(self) -> None:
        """End everything."""
        self._cluster.shutdown()


class StartedNodes:
    """Nodes as separate `ray start --block` processes, as on separate machines."""

    def __init__(self, num_nodes: int, num_head_cpus: int = 0, mode: str = "token") -> None:
        # A short path, because the names of Ray's sockets are limited to 107 bytes.
        self._folder, self._count = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp")), 0
        self.environment = os.environ | TOKEN_ENVIRONMENT | {"RAY_AUTH_MODE": mode}
        self.port, self.dashboard_port = free_port(), free_port()
        self.metrics_port = free_port()
        self.address, self.dashboard = f"127.0.0.1:{self.port}", f"http://127.0.0.1:{self.dashboard_port}"
        head = [
            "--head",
            f"--port={self.port}",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={self.dashboard_port}",
            f"--ray-client-server-port={free_port()}",
            f"--num-cpus={num_head_cpus}",
            f"--temp-dir={self._folder / 'r'}",
            f"--metrics-export-port={self.metrics_port}",
        ]
        self._head = self._start(head)
        self._nodes: list[subprocess.Popen[bytes]] = []
        self._had_raylet: set[int] = set()
        assert self._has_started(self._head), self._log().read_text()
        for _ in range(num_nodes):
            self.add()

    def add(self, wrapper: Sequence[str] = ()) -> None:
        """Start another node. wrapper: a command that runs the command given to it, for instance in a namespace.

        Of two nodes that start at the same time on one machine, Ray sometimes ends one; a job that starts before the
        nodes have joined plans with fewer CPUs. So this waits until the node has joined, and starts it again if needed.
        """
        for _ in range(3):
            node = [f"--address={self.address}", "--num-cpus=1", f"--metrics-export-port={free_port()}"]
            process = self._start(node, wrapper)
            if self._has_started(process):
                self._nodes.append(process)
                return
        raise AssertionError(self._log().read_text())

    def root_pids(self) -> list[int]:
        """The `ray start` processes."""
        return [node.pid for node in self._nodes]

    def kill_node(self, index: int) -> list[int]:
        """SIGKILL `ray start`, its raylet and all its workers."""
        node = self._nodes.pop(index)
        pids = [node.pid, *descendants_of(node.pid)]
        kill(pids)
        node.wait()
        return pids

    def mend(self) -> int:
        """Start a node for each whose `ray start` or raylet has ended.

        A raylet ends with its agent, and `ray start` may stay without noticing.
        """
        with_raylet = {node.pid for node in self._nodes if _has_raylet(node.pid)}
        gone = [one for one in self._nodes if one.poll() is not None or one.pid in self._had_raylet - with_raylet]
        self._had_raylet |= with_raylet
        for node in gone:
            self.kill_node(self._nodes.index(node))
            self.add()
        return len(gone)

    def close(self) -> None:
        """End everything."""
        for process in (*self._nodes, self._head):
            pids = [process.pid, *descendants_of(process.pid)]
            kill(pids)
            process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, arguments: list[str], wrapper: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        self._count += 1
        options = [
            "--block",
            "--disable-usage-stats",
            f"--object-store-memory={STORE_BYTES}",
            f"--dashboard-agent-listen-port={free_port()}",
            f"--dashboard-agent-grpc-port={free_port()}",
            "--min-worker-port=0",
            "--max-worker-port=0",
        ]
        command = [*wrapper, sys.executable, "-m", "ray.scripts.scripts", "start", *arguments, *options]
        with self._log().open("wb") as log:
            return subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)

    def _log(self) -> Path:
        return self._folder / f"node-{self._count}.log"

    def _has_started(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait until the newest node runs (True) or has ended (False)."""
        deadline = time.monotonic() + 120
        while b"Ray runtime started" not in self._log().read_bytes():
            if process.poll() is not None:
                return False
            assert time.monotonic() < deadline, self._log().read_text()
            time.sleep(0.1)
        return True


def _has_raylet(root: int) -> bool:
    for pid in descendants_of(root):
        with contextlib.suppress(OSError):
            if b"/raylet/raylet" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return True
    return False
