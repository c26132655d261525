"""Heartbeats: which runs count as live, what a finishing run removes, what `status` says of running and dead jobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from augment_service.config import OutputConfig
from augment_service.job.heartbeat import Heartbeat, read_heartbeats, remove_dead
from augment_service.job.inspect_output import status_command
from shared.errors import StoreError
from shared.manifest import write_or_check
from shared.shard_checks import remove_orphans
from shared.storage.store import LocalStore, open_store
from tests.support.manifests import small_manifest


def gone_pid() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_only_a_run_with_a_recent_heartbeat_and_a_process_is_live(tmp_path: Path) -> None:
    store, now = open_store(str(tmp_path)), time.time()
    names = [f"20260101T00000{number}_aaaaaaaa" for number in range(4)]
    own, other = Heartbeat(names[0]), Heartbeat(names[1], host="elsewhere", pid=1)
    killed, stopped = Heartbeat(names[2], pid=gone_pid()), Heartbeat(names[3], state="stopped")
    for one in (own, other, killed, stopped):
        one.write(store)
    (tmp_path / "runs" / "broken.json").write_text("{")
    (tmp_path / "runs" / "wrong_types.json").write_text('{"run": "x", "updated": "today"}')
    found = {one.run: one.is_live(now) for one in read_heartbeats(store)}
    assert found == dict(zip(names, (True, True, False, False), strict=True))
    assert not other.is_live(now + 120)
    assert remove_dead(store, own.run, now) == {other.run}
    # Only files with the name of a heartbeat are removed.
    assert store.list("runs") == [other.name, "runs/broken.json", "runs/wrong_types.json"]


def test_half_written_files_of_living_runs_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    names = {
        name: f"00000-0123456789abcdef.arrow.partial-{writer}-{'0' * 32}"
        for name, writer in (("alive", "20260101T000000_aaaa"), ("dead", "20260101T000000_bbbb"), ("unknown", "none"))
    }
    for name in names.values():
        (tmp_path / "shards" / name).write_bytes(b"half")
    store = open_store(str(tmp_path))
    assert store.list("shards") == []
    assert remove_orphans(store, frozenset({"20260101T000000_aaaa"})) == 1
    assert sorted(os.listdir(tmp_path / "shards")) == sorted([names["alive"], names["unknown"]])
    assert remove_orphans(store, frozenset({"20260101T000000_aaaa"}), older_than_seconds=-1.0) == 1


def test_a_link_that_nfs_made_but_reported_as_existing_is_a_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def link(source: Path, target: Path) -> None:
        real(source, target)
        raise FileExistsError(17, "File exists")

    store = LocalStore(str(tmp_path))
    monkeypatch.setattr(os, "link", link)
    assert store.put_if_absent("commits/00000.json", b"x")
    monkeypatch.setattr(os, "link", real)
    assert not store.put_if_absent("commits/00000.json", b"y")
    assert store.read("commits/00000.json") == b"x"


def test_a_heartbeat_that_cannot_be_written_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path))
    tried: list[str] = []

    def full(name: str, _content: bytes) -> None:
        tried.append(name)
        raise StoreError("no space left")

    monkeypatch.setattr(store, "put", full)
    beat = Heartbeat("run")
    beat.write(store)
    assert tried == [beat.name]


def test_status_shows_rate_time_left_and_actors_of_a_running_job(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    write_or_check(store, small_manifest(2000, 500))
    beat = Heartbeat("r1", host="elsewhere", rows=2000, rows_done=500, rows_per_second=12.5, eta_seconds=120.0)
    beat.actors_ready, beat.nodes, beat.retries = 3, 2, {"actor_lost": 2}
    beat.last_commits = [[7.0, time.time() - 4]]
    beat.write(store)
    running = status_command(OutputConfig(out=str(tmp_path)))
    assert "running" in running.text
    for part in ("12.5 rows/s", "2m00s left", "3 actors on 2 nodes", "2 actor_lost", "7 (4s ago)", "elsewhere"):
        assert part in running.text
    assert running.summary["runs"][0]["live"] is True
    beat.host, beat.pid = Heartbeat("x").host, gone_pid()
    beat.write(store)
    killed = status_command(OutputConfig(out=str(tmp_path)))
    assert "not complete: run the same command again" in killed.text
    assert "so it was killed" in killed.text
    beat.state, beat.message = "failed", "no space left"
    beat.write(store)
    assert "failed, 0s ago: no space left" in status_command(OutputConfig(out=str(tmp_path))).text


def test_every_log_line_has_the_bound_fields() -> None:
    code = (
        "import logging; from shared.cli.logs import *; configure_logs('json'); bind_log_fields(job='sst2');"
        "logging.getLogger('shared.x').warning('row_quarantined', extra={'fields': {'shard': 3}})"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    entry = json.loads(finished.stderr)
    assert (entry["event"], entry["job"], entry["shard"]) == ("row_quarantined", "sst2", 3)
