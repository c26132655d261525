"""The shard protocol on a real folder."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from augment_service.job.assemble import samples_table
from shared import errors
from shared.candidates import RowCandidates, Site, TextCandidates
from shared.errors import ManifestError, ShardError, StoreError, UsageError
from shared.inputs.rows import SourceRow
from shared.manifest import write_or_check
from shared.params import AugmentParams
from shared.sampling import draw_samples
from shared.schema import samples_schema
from shared.shards import (
    committed_shards,
    list_commits,
    read_shard,
    remove_orphans,
    revoke_damaged,
    verify_output,
    write_shard,
    write_success,
)
from shared.storage.store import LocalStore, open_store

SCHEMA = samples_schema(pa.int64(), [])
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def table_of(text: str, source_id: int = 0) -> pa.Table:
    """Sources and samples of one row whose whole text is one word."""
    sites = (Site(0, len(text), text, "mlm", ("é", "漢字", "😀"), (3.0, 2.0, 1.0)),) if text else ()
    found = [RowCandidates(source_id, TextCandidates(text, sites))]
    samples = draw_samples(found, AugmentParams(n_a=3, p_t=0.5))
    return samples_table(SCHEMA, [SourceRow(source_id, text, None, 1)], found, samples)


def filled(folder: Path, num_shards: int = 3) -> LocalStore:
    """A complete output folder with one row per shard."""
    store = LocalStore(str(folder))
    plan = {"rows": num_shards, "shards": num_shards, "shard_rows": 1}
    write_or_check(store, {"plan": plan, "schema": [f"{one.name}: {one.type}" for one in SCHEMA]})
    for shard in range(num_shards):
        write_shard(store, shard, table_of(f"word{shard}", shard), 1, [], {"samples": 3})
    write_success(store, {})
    return store


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(text=ANY_TEXT)
def test_any_unicode_survives_a_shard(tmp_path: Path, text: str) -> None:
    store = LocalStore(str(tmp_path / str(abs(hash(text)))))
    table = table_of(text)
    commit = write_shard(store, 0, table, 1, [], {})
    assert read_shard(store, commit).equals(table)
    assert write_shard(store, 0, table, 1, [], {}) == commit


def test_a_shard_written_twice_is_one_shard(tmp_path: Path) -> None:
    store = filled(tmp_path)
    write_shard(store, 1, table_of("word1", 1), 1, [], {})
    assert verify_output(store) == []
    assert len(store.list("shards")) == 3


def test_other_bytes_for_a_committed_shard_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    store = filled(tmp_path)
    with pytest.raises(ShardError, match="other hardware"):
        write_shard(store, 1, table_of("other", 1), 1, [], {})
    assert verify_output(store) == []


def test_verify_names_every_damage(tmp_path: Path) -> None:
    store = filled(tmp_path)
    first, second, third = list_commits(store)
    content = bytearray(store.read(first.file))
    content[len(content) // 2] ^= 1
    store.put(first.file, bytes(content))
    store.delete(second.file)
    store.delete("commits/00002.json")
    store.delete("_SUCCESS")
    faults = "\n".join(verify_output(store))
    for part in (
        f"{first.file} is damaged",
        f"{second.file} is committed but missing",
        "1 of 3 shards are not",
        third.file,
    ):
        assert part in faults


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    store = filled(tmp_path)
    (tmp_path / "shards" / "00009-aaaa.arrow").write_bytes(b"half")
    (tmp_path / "commits" / "00002.json.partial-0123").write_bytes(b"half")
    os.utime(tmp_path / "commits" / "00002.json.partial-0123", (1, 1))
    assert remove_orphans(store) == 2
    assert verify_output(store) == []


def test_another_job_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    asked: dict[str, Any] = {"config": {"k": 15, "seed": 0}}
    assert write_or_check(store, asked)
    assert not write_or_check(store, asked)
    with pytest.raises(ManifestError, match=r"config\.k was 15, now 10"):
        write_or_check(store, {"config": {"k": 10, "seed": 0}})


def test_a_full_disk_says_so_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"no space left for .*it resumes"):
        LocalStore(str(tmp_path)).put("shards/x.arrow", b"content")
    assert list((tmp_path / "shards").iterdir()) == []


def test_a_store_that_is_not_supported_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"a local folder or s3://bucket/prefix"):
        open_store("gs://bucket/prefix")


@pytest.mark.parametrize("name", [name for name in dir(errors) if name.endswith("Error")])
def test_errors_survive_pickling(name: str) -> None:
    error = getattr(errors, name)("what, where, how to mend")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_damaged_and_missing_shards_are_taken_back_before_a_run_goes_on(tmp_path: Path) -> None:
    store = filled(tmp_path, 5)
    before = {name: store.read(name) for name in store.list("commits")}
    commits = list_commits(store)
    changed = bytearray(store.read(commits[1].file))
    changed[-20] ^= 1
    store.put(commits[1].file, bytes(changed))
    store.put(commits[2].file, b"short")
    store.delete(commits[3].file)
    store.put("commits/00004.json", b"{")
    assert revoke_damaged(store, read_all=False) == [2, 3, 4]
    assert revoke_damaged(store, read_all=True) == [1]
    assert committed_shards(store) == {0}
    assert store.read("commits/00000.json") == before["commits/00000.json"]


def test_commits_beyond_five_digits_stay_in_order(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    table = pa.table({"source_id": pa.array([1], pa.int64())})
    for shard in (100_000, 99_999, 7):
        write_shard(store, shard, table, 1, [], {})
    assert [commit.shard for commit in list_commits(store)] == [7, 99_999, 100_000]
