"""The end of a run reads each commit once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from shared.shard_checks import check_complete, remove_orphans
from shared.shards import Commit, list_commits
from shared.storage.store import LocalStore
from shared.success import read_success, success_bytes, write_success
from shared.totals import total
from tests.support.shards import filled


def test_the_end_of_a_run_reads_each_commit_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, reads = filled(tmp_path, num_shards=70, quarantined=2), Counter[str]()
    read, commits = LocalStore.read, list_commits(store)

    def counted(self: LocalStore, name: str) -> bytes:
        reads[name] += 1
        return read(self, name)

    monkeypatch.setattr(LocalStore, "read", counted)
    seen: list[Commit] = []
    done = check_complete(store, rows=72, shards=70, also=seen.append)
    assert store.read("_SUCCESS") == success_bytes(store, done.totals, done.commits_sha256)
    remove_orphans(store, known=done.files)
    write_success(store, done.totals, done.commits_sha256)
    counts = {name: count for name, count in reads.items() if name.startswith("commits/")}
    assert counts == {f"commits/{shard:05d}.json": 1 for shard in range(70)}
    assert (sorted(seen, key=lambda one: one.shard), done.totals) == (commits, total(commits))
    success = read_success(store)
    assert success is not None
    assert success.totals == done.totals
