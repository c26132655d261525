"""Every kind of damage to an output folder is found, repaired or named."""

from __future__ import annotations

import os
from pathlib import Path

from shared.shard_checks import find_damaged, remove_orphans
from shared.shards import committed_shards, list_commits, write_shard
from shared.totals import total
from shared.verify import verify_output
from tests.support.shards import filled, table_of


def test_an_intact_output_has_no_faults(tmp_path: Path) -> None:
    store = filled(tmp_path)
    found = verify_output(store)
    assert (found.faults, found.totals) == ([], total(list_commits(store)))


def test_writing_a_shard_twice_leaves_one_shard(tmp_path: Path) -> None:
    store = filled(tmp_path)
    write_shard(store, 1, table_of("word1", 1), 1, [], {})
    assert verify_output(store).faults == []
    assert len(store.list("shards")) == 3


def test_verify_names_every_fault(tmp_path: Path) -> None:
    store = filled(tmp_path, 4)
    first, second, third, fourth = list_commits(store)
    content = bytearray(store.read(first.file))
    content[len(content) // 2] ^= 1
    store.put(first.file, bytes(content))
    store.delete(second.file)
    store.delete("commits/00002.json")
    store.put("commits/00003.json", b'{"shard": 3}')
    store.delete("_SUCCESS")
    found = verify_output(store)
    faults = "\n".join(found.faults)
    for part in (
        f"{first.file} is damaged",
        f"{second.file} is committed but missing",
        "2 of 4 shards are not committed (first: 2)",
        "commits/00003.json is not a valid commit record: file: Field required",
        f"{third.file} belongs to no commit",
        f"{fourth.file} belongs to no commit",
    ):
        assert part in faults
    assert found.totals.shards == 2


def test_a_row_in_two_shards_and_a_wrong_schema_are_faults(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.delete("commits/00002.json")
    write_shard(store, 2, table_of("word1", 1).rename_columns(["source_id", *"bcdef"]), 1, [], {})
    faults = "\n".join(verify_output(store).faults)
    assert "its schema differs from the manifest's" in faults
    assert "source row 1 is also in another shard" in faults


def test_leftovers_of_killed_writers_are_removed(tmp_path: Path) -> None:
    store = filled(tmp_path)
    (tmp_path / "shards" / "00009-0123456789abcdef.arrow").write_bytes(b"half")
    partial = tmp_path / "commits" / f"00002.json.partial-none-{'0' * 32}"
    partial.write_bytes(b"half")
    os.utime(partial, (1, 1))
    assert remove_orphans(store) == 2
    assert verify_output(store).faults == []


def test_damaged_and_missing_shards_are_found_and_repaired_in_place(tmp_path: Path) -> None:
    store = filled(tmp_path, 6)
    before = {name: store.read(name) for name in store.list("commits")}
    commits = list_commits(store)
    changed = bytearray(store.read(commits[1].file))
    changed[-20] ^= 1
    store.put(commits[1].file, bytes(changed))
    store.put(commits[2].file, b"short")
    store.delete(commits[3].file)
    store.put("commits/00004.json", b"{")
    store.put("commits/00005.json", b"[]")
    assert find_damaged(store, read_all=False) == [2, 3, 4, 5]
    assert find_damaged(store, read_all=True) == [1, 2, 3, 4, 5]
    assert committed_shards(store) == set(range(6))
    for shard in range(1, 6):
        write_shard(store, shard, table_of(f"word{shard}", shard), 1, [], {"samples": 3})
    assert {name: store.read(name) for name in store.list("commits")} == before
    assert verify_output(store).faults == []
