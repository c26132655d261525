"""The heartbeat of a run: a small file in the output, which `status` reads from any machine.

A finishing run also uses heartbeats to determine which half-written files may still be in use. They are not a lock: the
commit protocol keeps concurrent runs of one job from interfering.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path

from shared.errors import StoreError
from shared.json_text import parse_json
from shared.output_names import is_own
from shared.storage.store import Store

logger = logging.getLogger(__name__)

FOLDER = "runs"
PERIOD_SECONDS = 5.0
SILENT_AFTER_SECONDS = 60.0
"""A run that has been silent for this long counts as dead. Clock skew between machines must be less than this."""


@dataclass(slots=True)
class Heartbeat:
    """The status that a run reports.

    state: running, stopped (by a person or a signal) or failed. stalled_seconds: how long the work in flight has made
    no progress, 0 while that is not unusually long.
    """

    run: str
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    ray_job: str = ""
    state: str = "running"
    message: str = ""
    started: float = field(default_factory=time.time)
    updated: float = 0.0
    rows: int = 0
    rows_done: int = 0
    shards: int = 0
    shards_left: int = 0
    rows_per_second: float = 0.0
    eta_seconds: float | None = None
    actors_ready: int = 0
    actors_starting: int = 0
    nodes: int = 0
    shards_in_flight: int = 0
    stalled_seconds: float = 0.0
    retries: dict[str, int] = field(default_factory=dict)
    last_commits: list[list[float]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of its file in the output."""
        return f"{FOLDER}/{self.run}.json"

    def write(self, store: Store) -> None:
        """Write the file. If the store fails, log a warning and carry on."""
        self.updated = time.time()
        try:
            store.put(self.name, json.dumps(asdict(self), sort_keys=True).encode())
        except StoreError as error:
            logger.warning("heartbeat_failed", extra={"fields": {"reason": str(error)}})

    def is_live(self, now: float) -> bool:
        """Whether the run is alive, according to its file and, on the same machine, the process table."""
        if self.state != "running" or now - self.updated > SILENT_AFTER_SECONDS:
            return False
        return self.host != socket.gethostname() or Path(f"/proc/{self.pid}").exists() or not Path("/proc").exists()


def new_run_name() -> str:
    """A unique name: the time, for readability, and random digits."""
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + "_" + uuid.uuid4().hex[:8]


def read_heartbeats(store: Store) -> list[Heartbeat]:
    """All heartbeats in an output, oldest first. Invalid files are skipped."""
    found: list[Heartbeat] = []
    for name in store.list(FOLDER):
        try:
            found.append(parse_json(Heartbeat, store.read(name)))
        except (StoreError, ValueError):
            continue
    return sorted(found, key=lambda one: one.updated)


def remove_dead(store: Store, own: str, now: float) -> frozenset[str]:
    """Remove the heartbeats of dead runs and of the run `own`; returns the names of the runs that are alive."""
    live = {one.run for one in read_heartbeats(store) if one.is_live(now) and one.run != own}
    for name in store.list(FOLDER):
        if is_own(name, "heartbeat") and name.rpartition("/")[2].removesuffix(".json") not in live:
            store.delete(name)
    return frozenset(live)
