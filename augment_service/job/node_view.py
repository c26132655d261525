"""Checks of the files that a node can see. Each actor runs them before loading, so no shard goes to a wrong folder."""

from __future__ import annotations

import os
import socket
import time

from augment_service.job.heartbeat import Heartbeat
from shared.errors import ModelError, OutputError
from shared.storage.objects import is_remote
from shared.storage.store import open_store

PATIENCE_SECONDS = 10.0
"""A network file system may show a new file with a delay."""


def check_output_seen(output: str, run: str, patience_seconds: float = PATIENCE_SECONDS) -> None:
    """Raises OutputError, naming the node, if the local output here lacks the heartbeat of the driver's output."""
    if is_remote(output):
        return
    store, name = open_store(output), Heartbeat(run).name
    deadline = time.monotonic() + patience_seconds
    while not store.exists(name):
        if time.monotonic() > deadline:
            raise OutputError(
                f"node {socket.gethostname()} does not see the driver's --output {output}: it must be on a disk that "
                "all nodes share at the same path, or in an object store"
            )
        time.sleep(0.2)


def check_model_seen(option: str, path: str) -> None:
    """Raises ModelError, naming the node, if a model or vectors on the driver's disk are missing here."""
    if os.path.isabs(path) and not os.path.exists(path):
        elsewhere = ", or be the id of a model on the hub" if option == "--mlm" else ""
        raise ModelError(
            f"node {socket.gethostname()} has no {path} ({option}): it must be on every node at the same path"
            f"{elsewhere}"
        )
