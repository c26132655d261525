"""An actor that is killed while it works costs time and nothing else."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.integration.conftest import Job, finished_run, job  # noqa: F401
from tests.support.command import bytes_of, descendants_of, run_command


@pytest.mark.slow
def test_killed_actors_change_no_byte(job: Job, finished_run: Path, tmp_path: Path) -> None:  # noqa: F811
    output = tmp_path / "out"
    killed: list[int] = []

    def kill_two() -> None:
        deadline = time.monotonic() + 150
        while len(killed) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
            if len(list(output.glob("commits/*.json"))) < 2 + 6 * len(killed):
                continue
            for pid in descendants_of(os.getpid()):
                title = Path(f"/proc/{pid}/cmdline")
                try:
                    is_worker = b"MlmWorker.work" in title.read_bytes()
                except OSError:
                    continue
                if is_worker and pid not in killed:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                    break

    killer = threading.Thread(target=kill_two)
    killer.start()
    finished = run_command(*job.arguments(output, "--mlm-actors", "2"))
    killer.join()
    assert finished.returncode == 0, finished.stderr
    assert killed
    assert bytes_of(output) == bytes_of(finished_run)


@pytest.mark.slow
def test_vectors_that_die_are_replaced_and_nobody_is_accused(
    job: Job, finished_run: Path, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    output = tmp_path / "out"
    killed: list[int] = []

    def kill_vectors() -> None:
        deadline = time.monotonic() + 150
        # As soon as they have loaded: the first shards have asked nothing yet.
        while not killed and time.monotonic() < deadline:
            time.sleep(0.005)
            for pid in descendants_of(os.getpid()):
                try:
                    title = Path(f"/proc/{pid}/cmdline").read_bytes()
                except OSError:
                    continue
                if title.split(b"\0")[0] == b"ray::GloveWorker" and (output / "manifest.json").exists():
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    killer = threading.Thread(target=kill_vectors)
    killer.start()
    finished = run_command(*job.arguments(output, "--mlm-actors", "2"))
    killer.join()
    assert finished.returncode == 0, finished.stderr
    assert killed
    assert bytes_of(output) == bytes_of(finished_run)
