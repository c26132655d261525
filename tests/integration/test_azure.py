"""Outputs in Azure Blob Storage, against Azurite; skipped where `azurite-blob` is not installed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from shared.errors import StoreError
from shared.shard_checks import check_complete, find_damaged, remove_orphans
from shared.shards import list_commits, read_shard, write_shard
from shared.storage import objects
from shared.storage.input_files import expand, open_binary
from shared.storage.store import open_store
from shared.storage.whole_file import whole_file
from tests.support.azure import AZURITE, azurite, make_container

pytestmark = pytest.mark.skipif(AZURITE is None, reason="needs azurite-blob: npm install -g azurite")


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with azurite(tmp_path) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        objects._client_of.cache_clear()
        make_container(environment["AZURE_STORAGE_ENDPOINT"], "container")
        yield "az://container"


def test_the_store_in_azure_behaves_like_the_local_one(container: str) -> None:
    store = open_store(f"{container}/a folder/out")
    assert (store.list("commits"), store.exists("a/b"), store.entries()) == ([], False, [])
    store.put("a/b", b"one")
    store.put("a/b", b"three")
    assert (store.read("a/b"), store.sizes("a")) == (b"three", {"a/b": 5})
    barrier = threading.Barrier(8)

    def create(number: int) -> bool:
        barrier.wait()
        return store.put_if_absent("commits/1", str(number).encode())

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(8)))
    assert (sum(won), store.read("commits/1")) == (1, str(won.index(True)).encode())
    store.delete("commits/1")
    store.delete("commits/1")
    assert store.entries() == ["a/"]
    with pytest.raises(StoreError, match="no such object"):
        store.read("a/c")
    with pytest.raises(StoreError, match="az://no-such-container/out/a"):
        open_store("az://no-such-container/out").put("a", b"x")


def test_shards_and_inputs_in_azure(container: str, tmp_path: Path) -> None:
    store = open_store(f"{container}/job")
    tables = [pa.table({"source_id": [shard], "text_a": ["x" * 40_000]}) for shard in range(5)]
    for shard, table in enumerate(tables):
        write_shard(store, shard, table, 1, [], {})
    assert find_damaged(store, read_all=True) == []
    done = check_complete(store, rows=5, shards=5)
    store.put("shards/00007-0123456789abcdef.arrow", b"orphan")
    assert remove_orphans(store, known=done.files) == 1
    assert [read_shard(store, one) for one in list_commits(store)] == tables
    with whole_file(f"{container}/in/b.tsv") as path:
        path.write_bytes(b"a\tb\n" * 1000)
    assert expand([f"{container}/in/*.tsv"], (".tsv",)) == [f"{container}/in/b.tsv"]
    with open_binary(f"{container}/in/b.tsv") as file:
        assert file.read() == b"a\tb\n" * 1000
