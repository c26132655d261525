"""The shard protocol: write, commit, list, read.

A shard file is written first, under a name that contains its own hash; then its commit record, unless the shard already
has one. A shard exists once its commit does. Writing the same shard twice is harmless; different bytes for a
committed shard mean that the job is not deterministic, and are an error.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import ConfigDict

from shared.errors import ShardError
from shared.json_text import parse_json
from shared.output_names import is_own
from shared.storage.store import Store

SUCCESS = "_SUCCESS"
READERS = 16
"""Threads that read commits and shards concurrently."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Proof that a shard exists. `rows` counts samples with their sources, `sources` input rows that were used."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    shard: int
    file: str
    rows: int
    sources: int
    num_bytes: int
    sha256: str
    quarantined: int = 0
    quarantine_file: str | None = None
    quarantine_sha256: str | None = None
    statistics: dict[str, float] = field(default_factory=dict)


def shard_bytes(table: pa.Table) -> bytes:
    """The table as one Arrow IPC file (one record batch; the bytes depend on the table alone)."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return bytes(sink.getvalue())


def write_shard(
    store: Store,
    shard: int,
    table: pa.Table,
    sources: int,
    quarantine: list[dict[str, Any]],
    statistics: dict[str, float],
) -> Commit:
    """Write and commit one shard; returns its valid commit, which may be an earlier one. Raises ShardError, StoreError.

    statistics: a nonzero `halved_batches` means that memory ran out and the last digits may differ, see `_may_differ`.
    """
    content = shard_bytes(table)
    digest = hashlib.sha256(content).hexdigest()
    name = f"shards/{shard:05d}-{digest[:16]}.arrow"
    # Written even if the file exists: its name is the hash of these bytes, but a disk fault may have changed them.
    store.put(name, content)
    quarantine_file = quarantine_sha256 = None
    if quarantine:
        quarantine_file = f"quarantine/{shard:05d}.jsonl"
        lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in quarantine)
        records = lines.encode("utf-8", "surrogatepass")
        quarantine_sha256 = hashlib.sha256(records).hexdigest()
        store.put(quarantine_file, records)
    commit = Commit(
        shard=shard,
        file=name,
        rows=table.num_rows,
        sources=sources,
        num_bytes=len(content),
        sha256=digest,
        quarantined=len(quarantine),
        quarantine_file=quarantine_file,
        quarantine_sha256=quarantine_sha256,
        statistics=statistics,
    )
    try:
        valid = _commit(store, commit)
    except ShardError:
        _discard(store, commit, content)
        raise
    if valid.file != commit.file:
        _discard(store, commit, content)
    return valid


def _discard(store: Store, commit: Commit, content: bytes) -> None:
    """Remove the file of a shard whose commit was not accepted, unless another run has committed it since."""
    store.delete(commit.file)
    now = commit_or_none(store, commit.shard)
    if now is not None and now.file == commit.file:
        store.put(commit.file, content)


def _commit(store: Store, commit: Commit) -> Commit:
    """Create the commit record, or accept the existing one; returns the valid one. Raises ShardError, StoreError.

    Commits are never withdrawn. A record that is invalid, or whose shard is damaged, is replaced atomically: there is
    always a commit during a repair, so two runs that repair the same shard cannot lose it.
    """
    record, content = commit_name(commit.shard), commit_bytes(commit)
    if store.put_if_absent(record, content):
        return commit
    earlier = commit_or_none(store, commit.shard)
    if earlier is not None and _same_shard(earlier, commit):
        return earlier
    if earlier is None or earlier.sha256 == commit.sha256 or not is_whole(store, earlier):
        store.put(record, content)
        return commit
    if not (_may_differ(earlier.statistics) or _may_differ(commit.statistics)):
        raise ShardError(
            f"shard {commit.shard} of {store.uri} was committed with checksum {earlier.sha256[:16]}, but this run "
            f"computed {commit.sha256[:16]}: its hardware, library versions or thread count differ from those the job "
            "started with. Resume it where it was started, or use another --output"
        )
    return earlier


def _same_shard(one: Commit, other: Commit) -> bool:
    """Whether both records are of the same bytes and rows. Statistics may differ: they describe the execution."""
    return replace(one, statistics={}) == replace(other, statistics={})


def _may_differ(statistics: dict[str, float]) -> bool:
    """Whether batches were halved, which may change the last digits: then whichever commit came first is kept."""
    return bool(statistics.get("halved_batches"))


def commit_name(shard: int) -> str:
    """Name of a shard's commit record."""
    return f"commits/{shard:05d}.json"


def commit_bytes(commit: Commit) -> bytes:
    """The content of a commit record."""
    return json.dumps(asdict(commit), sort_keys=True).encode()


def commit_or_none(store: Store, shard: int) -> Commit | None:
    """The commit of a shard; None if it is missing or invalid. Raises StoreError."""
    name = commit_name(shard)
    try:
        commit = read_commit(store, name) if store.exists(name) else None
    except ShardError:
        return None
    return commit if commit is not None and commit.shard == shard else None


def is_whole(store: Store, commit: Commit) -> bool:
    """Whether the files of a commit exist and contain the committed bytes."""
    files = [(commit.file, commit.sha256)]
    if commit.quarantine_file is not None and commit.quarantine_sha256 is not None:
        files.append((commit.quarantine_file, commit.quarantine_sha256))
    return all(store.exists(file) and hashlib.sha256(store.read(file)).hexdigest() == digest for file, digest in files)


def done_already(store: Store, shard: int) -> Commit | None:
    """The commit of a shard that needs no work: valid, with intact files. Otherwise None."""
    commit = commit_or_none(store, shard)
    return commit if commit is not None and is_whole(store, commit) else None


def read_commit(store: Store, name: str) -> Commit:
    """One commit record. Raises ShardError if it is invalid."""
    return parse_commit(store, name, store.read(name))


def parse_commit(store: Store, name: str, content: bytes) -> Commit:
    """The commit record in `content`, the file `name` of the store. Raises ShardError if it is invalid."""
    try:
        return parse_json(Commit, content)
    except ValueError as error:
        raise ShardError(f"{store.uri}/{name} is not a valid commit record: {error}") from error


def iter_records(store: Store, names: Sequence[str]) -> Iterator[bytes]:
    """The contents of these files, in order, read a few at a time by several threads. Raises StoreError."""
    with ThreadPoolExecutor(READERS) as readers:
        for start in range(0, len(names), 4 * READERS):
            yield from readers.map(store.read, names[start : start + 4 * READERS])


def list_commits(store: Store) -> list[Commit]:
    """All commits, in shard order."""
    return list(iter_commits(store))


def iter_commits(store: Store) -> Iterator[Commit]:
    """All commits, in shard order, read a few at a time without holding the whole list in memory."""
    names = [commit_name(shard) for shard in sorted(committed_shards(store))]
    for name, content in zip(names, iter_records(store, names), strict=True):
        yield parse_commit(store, name, content)


def committed_shards(store: Store) -> set[int]:
    """Numbers of the committed shards, from the names of their records alone."""
    return {shard_of(name) for name in commit_names(store)}


def commit_names(store: Store) -> list[str]:
    """Names of the commit records, sorted as text, which is the order of the checksum in `_SUCCESS`."""
    return [name for name in store.list("commits") if is_own(name, "commit")]


def shard_of(name: str) -> int:
    """The number in the name of a shard or of its commit record."""
    return int(re.split(r"[-.]", name.rpartition("/")[2])[0])


def read_shard(store: Store, commit: Commit) -> pa.Table:
    """The rows of a committed shard. Raises ShardError if its bytes differ from the committed ones."""
    if not store.exists(commit.file):
        raise ShardError(f"{store.uri}/{commit.file} is committed but missing")
    content = store.read(commit.file)
    if hashlib.sha256(content).hexdigest() != commit.sha256:
        raise ShardError(
            f"{store.uri}/{commit.file} is damaged: its checksum differs from the one in its commit. Run the same job "
            "again to recompute the shard"
        )
    table = pa.ipc.open_file(content).read_all()
    if table.num_rows != commit.rows:
        raise ShardError(f"{store.uri}/{commit.file} has {table.num_rows} rows, but its commit says {commit.rows}")
    return table
