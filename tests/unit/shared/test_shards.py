"""The shard protocol on a real folder, and the errors of a store."""

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

from shared import errors
from shared.errors import ShardError, StoreError, UsageError
from shared.shards import list_commits, read_commit, read_shard, write_shard
from shared.storage.store import LocalStore, open_store
from shared.success import read_success, write_success
from shared.totals import Totals, total
from tests.support.shards import filled, table_of

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(text=ANY_TEXT)
def test_a_shard_round_trips_any_unicode(tmp_path: Path, text: str) -> None:
    store = LocalStore(str(tmp_path / str(abs(hash(text)))))
    table = table_of(text)
    commit = write_shard(store, 0, table, 1, [], {})
    assert read_shard(store, commit).equals(table)
    assert write_shard(store, 0, table, 1, [], {}) == commit


def test_different_bytes_for_a_committed_shard_are_rejected_and_removed(tmp_path: Path) -> None:
    store = filled(tmp_path)
    before = {name: store.read(name) for folder in ("shards", "commits") for name in store.list(folder)}
    with pytest.raises(ShardError, match="thread count differ from those the job started with"):
        write_shard(store, 1, table_of("other", 1), 1, [], {})
    assert {name: store.read(name) for folder in ("shards", "commits") for name in store.list(folder)} == before


def test_commits_beyond_five_digits_stay_in_order(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    table = pa.table({"source_id": pa.array([1], pa.int64())})
    for shard in (100_000, 99_999, 7):
        write_shard(store, shard, table, 1, [], {})
    assert [commit.shard for commit in list_commits(store)] == [7, 99_999, 100_000]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"shard": 0', "Invalid JSON"),
        ("[]", "object"),
        ("null", "object"),
        ('{"shard": 0}', "file: Field required"),
        ('{"shard": "0", "file": "a", "rows": 1, "sources": 1, "num_bytes": 1, "sha256": "b"}', "shard: "),
        ('{"shard": 0, "file": null, "rows": 1, "sources": 1, "num_bytes": 1, "sha256": "b"}', "file: "),
        (
            '{"shard": 0, "file": "a", "rows": 1, "sources": 1, "num_bytes": 1, "sha256": "b", "statistics": [1]}',
            "statistics: ",
        ),
    ],
)
def test_a_commit_record_of_the_wrong_shape_gives_one_line(tmp_path: Path, content: str, message: str) -> None:
    store = LocalStore(str(tmp_path))
    store.put("commits/00000.json", content.encode())
    with pytest.raises(ShardError, match=r"commits/00000\.json is not a valid commit record: ") as caught:
        read_commit(store, "commits/00000.json")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_totals_add_up_the_commits(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    counts: dict[str, float] = {"samples": 6, "replaceable_words": 20, "replaced_by_mlm": 6, "replaced_by_glove": 2}
    for shard in (0, 1):
        write_shard(store, shard, table_of(f"word{shard}", shard), 1, [{"position": 9}], counts)
    sizes = store.sizes("shards")
    assert total(list_commits(store)) == Totals(
        shards=2,
        rows=2,
        quarantined=2,
        samples=12,
        share_replaced=0.4,
        share_by_glove=0.25,
        bytes=sum(sizes.values()),
    )
    assert total([]) == Totals()


def test_the_success_file_holds_the_totals(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    write_success(store, Totals(shards=1, rows=2, samples=3, share_replaced=0.5, bytes=9))
    recorded = read_success(store)
    assert recorded is not None
    assert recorded.totals == Totals(shards=1, rows=2, samples=3, share_replaced=0.5, bytes=9)
    store.put("_SUCCESS", b"")
    assert read_success(store) is None


def test_a_full_disk_is_reported_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"no space left for .*again to resume"):
        LocalStore(str(tmp_path)).put("shards/x.arrow", b"content")
    assert list((tmp_path / "shards").iterdir()) == []


def test_an_unsupported_store_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"a local path, s3://bucket/prefix"):
        open_store("hdfs://bucket/out")


@pytest.mark.parametrize("name", [name for name in dir(errors) if name.endswith("Error")])
def test_errors_survive_pickling(name: str) -> None:
    error: Any = getattr(errors, name)("what, where, how to fix it")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
