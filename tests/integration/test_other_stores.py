"""Outputs in Azure Blob Storage, against Azurite if it is installed, and in Google Cloud Storage, against a proxy.

The S3 tests cover the rest: everything above `shared.storage.objects` is the same for all stores.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Iterator
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
from tests.support.bucket_runs import run
from tests.support.distillation import save_dev, save_teacher
from tests.support.google import GoogleProxy
from tests.support.object_store import check_one_writer_creates, moto_server, s3_client

NEEDS_AZURITE = pytest.mark.skipif(AZURITE is None, reason="needs azurite-blob: npm install -g azurite")


@contextlib.contextmanager
def azure_container(folder: Path, environment: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty container; the environment names its account."""
    with azurite(folder) as variables:
        for name, value in variables.items():
            environment.setenv(name, value)
        make_container(variables["AZURE_STORAGE_ENDPOINT"], "container")
        yield "az://container"


@contextlib.contextmanager
def google_bucket(folder: Path, environment: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket behind a network that breaks a tenth of the requests; the environment names the server."""
    with moto_server(folder / "moto.log") as server, GoogleProxy(server, 0.1, seed=3) as proxy:
        s3_client(server).create_bucket(Bucket="bucket")
        environment.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        yield "gs://bucket"
        assert proxy.faults


@pytest.fixture(params=["google", pytest.param("azure", marks=NEEDS_AZURITE)])
def container(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of an empty bucket or container."""
    start = {"google": google_bucket, "azure": azure_container}[request.param]
    with start(tmp_path, monkeypatch) as uri:
        objects._client_of.cache_clear()
        yield uri


def test_the_store_behaves_like_the_local_one(container: str) -> None:
    store = open_store(f"{container}/a folder/out")
    assert (store.list("commits"), store.exists("a/b"), store.entries()) == ([], False, [])
    store.put("a/b", b"one")
    store.put("a/b", b"three")
    assert (store.read("a/b"), store.sizes("a")) == (b"three", {"a/b": 5})
    check_one_writer_creates(store, "commits/1")
    store.delete("commits/1")
    store.delete("commits/1")
    assert store.entries() == ["a/"]
    with pytest.raises(StoreError, match="no such object"):
        store.read("a/c")
    other = f"{container.partition('://')[0]}://no-such-container/out"
    with pytest.raises(StoreError, match=f"{other}/a"):
        open_store(other).put("a", b"x")


def test_shards_and_inputs(container: str, tmp_path: Path) -> None:
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


@pytest.mark.slow
def test_a_killed_training_continues_from_the_store_alone(container: str, tmp_path: Path) -> None:
    encoder, data = str(save_teacher(tmp_path / "encoder")), str(save_dev(tmp_path / "dev.tsv", 60))
    command = ["teacher", "--task", "SST-2", "--train", data, "--encoder", encoder, "--batch-size", "8"]
    command += ["--threads", "1", "--device", "cpu", "--dtype", "fp32", "--epochs", "2", "--log-level", "error"]
    command += ["--loader-workers", "0", "--checkpoint-seconds", "0.001"]
    local = run([*command, "--output", str(tmp_path / "local")], None, tmp_path / "cache")
    assert local.returncode == 0, local.stderr
    command += ["--output", f"{container}/run"]
    killed = run(command, None, tmp_path / "first", killed_at=6)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    shutil.rmtree(tmp_path / "first")
    finished = run(command, None, tmp_path / "second")
    assert finished.returncode == 0, finished.stderr
    weights = (tmp_path / "local" / "model" / "model.safetensors").read_bytes()
    assert open_store(f"{container}/run").read("model/model.safetensors") == weights
