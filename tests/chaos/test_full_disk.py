"""A disk that is really full (a small tmpfs): one clear error line, nothing lost, and the same command resumes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.shards import list_commits, read_shard
from shared.storage.store import open_store
from tests.integration.conftest import Job, finished_run, job  # noqa: F401
from tests.support.command import bytes_of, run_command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def mount(options: str, folder: Path) -> None:
    """Mount or remount a tmpfs. Skips the test where that is not allowed; in CI, which runs as root, it fails."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        reason = f"mounting a small file system is not allowed here: {finished.stderr.strip()}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("size=200k", folder)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_gives_one_error_line_and_the_same_command_resumes(
    job: Job,  # noqa: F811
    finished_run: Path,  # noqa: F811
    small_disk: Path,
) -> None:
    whole = bytes_of(finished_run)
    assert sum(map(len, whole.values())) > 300_000, "the job must not fit"
    output = small_disk / "out"
    stopped = run_command(*job.arguments(output, "--mlm-actors", "2"))
    assert stopped.returncode == 1
    (line,) = [line for line in stopped.stderr.splitlines() if "error:" in line]
    assert "no space left for" in line
    assert "run the same command again to resume" in line
    assert "Traceback" not in stopped.stderr
    store = open_store(str(output))
    commits = list_commits(store)
    assert commits
    assert all(read_shard(store, commit).num_rows == commit.rows for commit in commits)
    assert not (output / "_SUCCESS").exists()
    # Still full: the same error again, and committed shards stay.
    again = run_command(*job.arguments(output, "--mlm-actors", "1"))
    assert again.returncode == 1
    assert "no space left for" in again.stderr
    assert {one.shard for one in commits} <= {one.shard for one in list_commits(store)}
    mount("remount,size=50m", small_disk)
    resumed = run_command(*job.arguments(output, "--mlm-actors", "2"))
    assert resumed.returncode == 0, resumed.stderr
    assert bytes_of(output) == whole


def test_an_export_that_does_not_fit_leaves_no_half_file(finished_run: Path, small_disk: Path) -> None:  # noqa: F811
    mount("remount,size=40k", small_disk)
    target = small_disk / "all.jsonl"
    finished = run_command("export", str(finished_run), "--format", "jsonl", "--output", str(target))
    assert finished.returncode == 1
    assert "No space left on device" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert list(small_disk.iterdir()) == []
