"""A run's sign of life: one small file in the output, which `status` reads from any machine.

It also tells a run that finishes whose half-written files may still be wanted. A heartbeat guards nothing: what keeps
two runs of one job from harming each other is the commit protocol.
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
from shared.storage.store import Store

logger = logging.getLogger(__name__)

FOLDER = "runs"
PERIOD_SECONDS = 5.0
SILENT_AFTER_SECONDS = 60.0
"""A run that was silent for this long is taken for dead; clocks of the machines may differ by less than this."""


@dataclass(slots=True)
class Heartbeat:
    """What a run says about itself. `state`: running, stopped (by a person or signal) or failed."""

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
    retries: dict[str, int] = field(default_factory=dict)
    last_commits: list[list[float]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its file in the output."""
        return f"{FOLDER}/{self.run}.json"

    def write(self, store: Store) -> None:
        """Say it; a store that fails just now costs a log line and nothing else."""
        self.updated = time.time()
        try:
            store.put(self.name, json.dumps(asdict(self), sort_keys=True).encode())
        except StoreError as error:
            logger.warning("heartbeat_failed", extra={"fields": {"reason": str(error)}})

    def is_live(self, now: float) -> bool:
        """Whether it is running, as far as its file tells, and on its own machine the process table."""
        if self.state != "running" or now - self.updated > SILENT_AFTER_SECONDS:
            return False
        return self.host != socket.gethostname() or Path(f"/proc/{self.pid}").exists() or not Path("/proc").exists()


def new_run_name() -> str:
    """Name of a run: its time, for a reader, and some chance."""
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + "_" + uuid.uuid4().hex[:8]


def read_heartbeats(store: Store) -> list[Heartbeat]:
    """Those in an output, the latest last; a file that is no heartbeat is left out."""
    found: list[Heartbeat] = []
    for name in store.list(FOLDER):
        try:
            found.append(parse_json(Heartbeat, store.read(name)))
        except (StoreError, ValueError):
            continue
    return sorted(found, key=lambda one: one.updated)


def remove_dead(store: Store, own: str, now: float) -> frozenset[str]:
    """Remove the files of runs that are over, and `own`; returns the names of runs that live."""
    live = {one.run for one in read_heartbeats(store) if one.is_live(now) and one.run != own}
    for name in store.list(FOLDER):
        if name.rpartition("/")[2].removesuffix(".json") not in live:
            store.delete(name)
    return frozenset(live)
