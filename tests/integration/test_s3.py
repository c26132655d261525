"""Outputs and inputs in S3 over an unreliable network: real clients, a real server (moto), a proxy that adds faults."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.errors import InputError, StoreError, UsageError
from shared.manifest import write_or_check
from shared.shard_checks import find_damaged, remove_orphans
from shared.shards import list_commits, read_shard, write_shard
from shared.storage import objects
from shared.storage.input_files import expand, open_binary, sha256_of
from shared.storage.store import Store, open_store
from tests.integration.conftest import Job
from tests.support.command import bytes_of, run_command
from tests.support.manifests import small_manifest
from tests.support.object_store import ENVIRONMENT, FaultyProxy, check_one_writer_creates, moto_server, s3_client
from trainer.data.augmented import wait_for_commit

FOLDERS = ("shards", "commits", "quarantine", "runs")


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with moto_server(tmp_path_factory.mktemp("moto") / "log") as url:
        s3_client(url).create_bucket(Bucket="bucket")
        yield url


def use(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process and its children use the server at `url`."""
    for name, value in (ENVIRONMENT | {"AWS_ENDPOINT_URL_S3": url}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(objects, "FIRST_PAUSE_SECONDS", 0.05)
    objects._client_of.cache_clear()


@pytest.fixture
def clean(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(moto, monkeypatch)


@pytest.fixture
def faulty(moto: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    with FaultyProxy(moto, 0.25, seed=3) as proxy:
        use(proxy.url, monkeypatch)
        yield proxy


def content_of(store: Store) -> dict[str, bytes]:
    names = [name for folder in FOLDERS for name in store.list(folder)] + ["manifest.json", "_SUCCESS"]
    return {name: store.read(name) for name in names}


def table(shard: int) -> pa.Table:
    return pa.table({"source_id": pa.array([shard], pa.int64()), "text_a": ["x" * (40_000 + shard)]})


def test_the_s3_store_behaves_like_the_local_one(clean: None) -> None:
    store = open_store("s3://bucket/plain")
    assert (store.list("commits"), store.exists("a/b")) == ([], False)
    store.put("a/b", b"one")
    store.put("a/b", b"three")
    assert (store.read("a/b"), store.sizes("a")) == (b"three", {"a/b": 5})
    assert store.put_if_absent("a/c", b"1")
    assert not store.put_if_absent("a/c", b"2")
    assert store.read("a/c") == b"1"
    store.delete("a/b")
    store.delete("a/b")
    assert store.list("a") == ["a/c"]
    with pytest.raises(StoreError, match="s3://bucket/plain/a/b: no such object"):
        store.read("a/b")


def test_exactly_one_of_many_writers_creates_an_object(clean: None) -> None:
    store = open_store("s3://bucket/race")
    check_one_writer_creates(store, "commits/1")


def test_shards_survive_a_fault_in_every_fourth_request(faulty: FaultyProxy) -> None:
    store = open_store("s3://bucket/faulty")
    for shard in range(8):
        write_shard(store, shard, table(shard), 1, [], {})
    assert [commit.shard for commit in list_commits(store)] == list(range(8))
    assert write_or_check(store, small_manifest(8))
    for shard in range(8):
        assert read_shard(store, wait_for_commit(store, shard, 8, 5.0)).equals(table(shard))
    assert set(faulty.faults) == {"500", "503", "slow", "torn-upload", "lost-answer", "torn-download"}


def test_damaged_objects_and_orphans_are_found(clean: None) -> None:
    store = open_store("s3://bucket/damaged")
    commits = [write_shard(store, shard, table(shard), 1, [], {}) for shard in range(3)]
    changed = bytearray(store.read(commits[1].file))
    changed[100] ^= 1
    store.put(commits[1].file, bytes(changed))
    assert find_damaged(store, read_all=False) == []
    assert find_damaged(store, read_all=True) == [1]
    write_shard(store, 1, table(1), 1, [], {})
    assert find_damaged(store, read_all=True) == []
    assert remove_orphans(store) == 0
    store.put("shards/00007-0123456789abcdef.arrow", b"of a run that was killed")
    assert remove_orphans(store) == 1


def test_an_object_of_many_blocks_is_one_request_and_comes_back_whole(
    clean: None, moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.storage.object_store.BLOCK_BYTES", 1 << 16)
    store, content = open_store("s3://bucket/large"), bytes(range(256)) * 2000
    store.put("shards/a", content)
    assert store.read("shards/a") == content
    # The tag of an upload in parts ends in their number.
    assert "-" not in s3_client(moto).head_object(Bucket="bucket", Key="large/shards/a")["ETag"]


def test_keys_are_used_as_they_are_written(clean: None, moto: str) -> None:
    outside = s3_client(moto)
    names = ["a b", "a%20b", "#?&=+", "[x]*", "漢字é", "~", "a'b\"c"]
    for name in names:
        open_store("s3://bucket/odd keys").put(f"f/{name}", name.encode())
    listed = [one["Key"] for one in outside.list_objects_v2(Bucket="bucket", Prefix="odd keys/")["Contents"]]
    assert sorted(listed) == sorted(f"odd keys/f/{name}" for name in names)
    store = open_store("s3://bucket/odd keys")
    assert store.list("f") == sorted(f"f/{name}" for name in names)
    assert [store.read(f"f/{name}").decode() for name in names] == names
    assert (store.entries(), open_store("s3://bucket/odd").entries()) == (["f/"], [])


def test_a_file_that_is_replaced_while_it_is_read_is_an_error(
    clean: None, moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.storage.input_files.BLOCK_BYTES", 1000)
    store = open_store("s3://bucket/replaced")
    store.put("a.csv", b"x" * 5000)
    with open_binary("s3://bucket/replaced/a.csv") as file:
        assert file.read(10) == b"x" * 10
        store.put("a.csv", b"y" * 5000)
        with pytest.raises(InputError, match="was replaced while it was being read"):
            file.read()


def test_a_missing_bucket_and_an_unreachable_server_give_one_clear_line(
    clean: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError, match="s3://no-such-bucket/out/a"):
        open_store("s3://no-such-bucket/out").put("a", b"x")
    with pytest.raises(StoreError, match="NoSuchBucket"):
        open_store("s3://no-such-bucket/out").put_if_absent("a", b"x")
    with pytest.raises(UsageError, match="the bucket name is missing"):
        open_store("s3://")
    with pytest.raises(InputError, match=r"s3://bucket/nothing\.csv: no such file"):
        sha256_of("s3://bucket/nothing.csv")
    monkeypatch.setattr(objects, "MAX_TRIES", 2)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    objects._client_of.cache_clear()
    with pytest.raises(StoreError, match="failed 2 times") as caught:
        open_store("s3://bucket/out").put_if_absent("a", b"x")
    assert caught.value.is_transient


def test_input_files_are_found_and_read_in_blocks(faulty: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.storage.input_files.BLOCK_BYTES", 10_000)
    store = open_store("s3://bucket/inputs")
    lines = [f"line {number}\t{number % 2}\n".encode() for number in range(20_000)]
    store.put("b.tsv", b"".join(lines))
    store.put("a.csv", b"x")
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": ["one", "two"]}), sink)
    store.put("c.parquet", sink.getvalue().to_pybytes())
    kinds = (".csv", ".tsv", ".parquet")
    uri = "s3://bucket/inputs"
    assert expand([uri], kinds) == [f"{uri}/{name}" for name in ("a.csv", "b.tsv", "c.parquet")]
    assert expand([f"{uri}/*.tsv", f"{uri}/a.csv"], kinds) == [f"{uri}/b.tsv", f"{uri}/a.csv"]
    with pytest.raises(InputError, match="no files of a known type"):
        expand([f"{uri}/*.jsonl"], kinds)
    for name in ("deep/er/d.CSV", "deep/.hidden.csv", "deep/_SUCCESS", ".git/e.csv"):
        store.put(name, b"x")
    assert expand([f"{uri}/**"], (".csv",)) == [f"{uri}/a.csv", f"{uri}/deep/er/d.CSV"]
    assert expand([f"{uri}/**/d.*"], (".csv",)) == [f"{uri}/deep/er/d.CSV"]
    with open_binary(f"{uri}/b.tsv") as file:
        assert list(file) == lines
    with open_binary(f"{uri}/c.parquet") as file:
        assert pq.read_table(file).to_pydict() == {"text": ["one", "two"]}
    assert faulty.faults.total() > 3


@pytest.mark.slow
def test_a_job_in_s3_with_faults_writes_the_same_bytes(
    job: Job, finished_run: Path, faulty: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty.share = 0.12
    store = open_store("s3://bucket/job")
    finished = run_command(*job.arguments(Path("unused"), "--mlm-actors", "2", "--output", "s3://bucket/job/out"))
    assert finished.returncode == 0, finished.stderr
    store = open_store("s3://bucket/job/out")
    assert faulty.faults.total() >= 10
    faulty.share = 0.0
    assert content_of(store) == bytes_of(finished_run)
    assert run_command("verify", "s3://bucket/job/out").returncode == 0
    status = run_command("status", "s3://bucket/job/out")
    assert "complete" in status.stdout
    assert os.environ["AWS_ENDPOINT_URL_S3"] == faulty.url
    faulty.share = 0.2
    for target in ("s3://bucket/job/all.jsonl", str(finished_run.parent / "all.jsonl")):
        exported = run_command("export", "s3://bucket/job/out", "--format", "jsonl", "--output", target)
        assert exported.returncode == 0, exported.stderr
    with open_binary("s3://bucket/job/all.jsonl") as file:
        assert file.read() == (finished_run.parent / "all.jsonl").read_bytes()
    assert run_command("export", "s3://bucket/job/out", "--output", "s3://bucket").returncode == 2
