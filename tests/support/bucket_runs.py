"""Commands of the trainer that write to the S3 server of the tests, each with a scratch folder that may be lost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.support.command import ROOT, descendants_of
from tests.support.object_store import ENVIRONMENT, s3_client


def run(
    arguments: list[str], url: str | None, cache: Path, killed_at: int | None = None
) -> subprocess.CompletedProcess[str]:
    """The command with its scratch folder in `cache`; SIGKILL in publication number `killed_at`.

    url: the S3 server, or None if the environment names another kind of store.
    """
    module = ["tests.support.killed_publisher", str(killed_at)] if killed_at is not None else ["trainer"]
    server = ENVIRONMENT | {"AWS_ENDPOINT_URL_S3": url} if url else {}
    environment = os.environ | server | {"TRAINER_CACHE": str(cache)}
    command = [sys.executable, "-m", *module, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)


def names_of(url: str, prefix: str) -> set[str]:
    """Names of the objects below a prefix, without it."""
    pages = s3_client(url).get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=prefix)
    return {one["Key"].removeprefix(prefix) for page in pages for one in page.get("Contents", [])}


def objects_of(url: str, prefix: str) -> dict[str, bytes]:
    """Contents of the objects below a prefix, which nobody changes now."""
    client = s3_client(url)
    return {
        name: client.get_object(Bucket="bucket", Key=prefix + name)["Body"].read() for name in names_of(url, prefix)
    }


def without_times(content: bytes) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in content.splitlines()]
    return [{key: value for key, value in line.items() if not key.endswith("seconds")} for line in lines]


@contextlib.contextmanager
def started(arguments: list[str], url: str, cache: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command with its scratch folder in `cache`; nothing that it started is left after the block."""
    environment = os.environ | ENVIRONMENT | {"AWS_ENDPOINT_URL_S3": url, "TRAINER_CACHE": str(cache)}
    command = [sys.executable, "-m", "trainer", *arguments]
    with (cache.parent / f"{cache.name}.log").open("w+") as errors:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=errors, start_new_session=True)
        try:
            yield process
        finally:
            lose_machine(process)


def wait_until(is_time: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 300) -> None:
    """Fails when the process ends first, or it takes longer."""
    deadline = time.monotonic() + seconds
    while not is_time():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def lose_machine(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the process and everything that it started, at once."""
    for pid in (process.pid, *descendants_of(process.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
