"""The shard protocol: write, commit, list, read, verify.

A shard is written first, under a name that holds its own hash; then its commit record, created only if none is there.
A shard exists when its commit does. Writing the same shard twice is harmless; different bytes for a committed shard
mean that determinism broke, and are an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from shared.errors import ShardError
from shared.manifest import read_manifest
from shared.storage.store import Store

SUCCESS = "_SUCCESS"
READERS = 16


@dataclass(frozen=True, slots=True)
class Commit:
    """Proof that a shard exists. `rows` counts samples with their sources, `sources` input rows that were used."""

    shard: int
    file: str
    rows: int
    sources: int
    num_bytes: int
    sha256: str
    quarantined: int = 0
    quarantine_file: str | None = None
    statistics: dict[str, float] = field(default_factory=dict)


def shard_bytes(table: pa.Table) -> bytes:
    """The table as one Arrow IPC file (one record batch; bytes depend on the table alone)."""
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
    """Write and commit one shard; returns the commit that stands. Raises ShardError, StoreError.

    Statistics with `halved_batches` say that memory ran out and that the last digits may differ; see `_may_differ`.
    """
    content = shard_bytes(table)
    digest = hashlib.sha256(content).hexdigest()
    name = f"shards/{shard:05d}-{digest[:16]}.arrow"
    # Written even where a file of that name stands: its name promises these bytes, a disk fault may have changed them.
    store.put(name, content)
    quarantine_file = None
    if quarantine:
        quarantine_file = f"quarantine/{shard:05d}.jsonl"
        lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in quarantine)
        store.put(quarantine_file, lines.encode("utf-8", "surrogatepass"))
    commit = Commit(
        shard, name, table.num_rows, sources, len(content), digest, len(quarantine), quarantine_file, statistics
    )
    record = commit_name(shard)
    if store.put_if_absent(record, json.dumps(asdict(commit), sort_keys=True).encode()):
        return commit
    standing = read_commit(store, record)
    if standing.sha256 != digest:
        store.delete(name)
        if _may_differ(standing.statistics) or _may_differ(statistics):
            return standing
        raise ShardError(
            f"shard {shard} of {store.uri} was committed as {standing.sha256[:16]} and came out as {digest[:16]} now: "
            "other hardware, library or thread count than the job began with"
        )
    return standing


def _may_differ(statistics: dict[str, float]) -> bool:
    """A batch done in halves may differ in its last digits from the whole: the first commit wins, whichever it is."""
    return bool(statistics.get("halved_batches"))


def commit_name(shard: int) -> str:
    """Name of a shard's commit record."""
    return f"commits/{shard:05d}.json"


def read_commit(store: Store, name: str) -> Commit:
    """One commit record. Raises ShardError when it is none."""
    try:
        return Commit(**json.loads(store.read(name)))
    except (ValueError, TypeError) as error:
        raise ShardError(f"{store.uri}/{name} is no commit record: {error}") from error


def list_commits(store: Store) -> list[Commit]:
    """All commits, in shard order."""
    return list(iter_commits(store))


def iter_commits(store: Store) -> Iterator[Commit]:
    """All commits, in shard order, read a few at a time and never held as a whole."""
    names = [commit_name(shard) for shard in sorted(committed_shards(store))]
    with ThreadPoolExecutor(READERS) as readers:
        for start in range(0, len(names), 4 * READERS):
            yield from readers.map(lambda name: read_commit(store, name), names[start : start + 4 * READERS])


def committed_shards(store: Store) -> set[int]:
    """Numbers of the committed shards, from the names of their records alone."""
    names = (name.rpartition("/")[2] for name in store.list("commits"))
    return {int(name.removesuffix(".json")) for name in names if name.removesuffix(".json").isdigit()}


def revoke_damaged(store: Store, read_all: bool) -> list[int]:
    """Take back commits whose shard is missing, of another size or (`read_all`) of another checksum; returns them.

    The job then makes those shards anew, byte for byte. A commit record that is none is taken back as well.
    """
    sizes = store.sizes("shards")

    def is_whole(commit: Commit) -> bool:
        if sizes.get(commit.file) != commit.num_bytes:
            return False
        return not read_all or hashlib.sha256(store.read(commit.file)).hexdigest() == commit.sha256

    damaged: list[int] = []
    with ThreadPoolExecutor(READERS) as readers:
        shards = sorted(committed_shards(store))
        for start in range(0, len(shards), 4 * READERS):
            part = shards[start : start + 4 * READERS]
            commits = list(readers.map(lambda shard: _commit_or_none(store, shard), part))
            found = readers.map(lambda one: one is not None and is_whole(one), commits)
            damaged += [shard for shard, is_good in zip(part, found, strict=True) if not is_good]
    for shard in damaged:
        store.delete(commit_name(shard))
    return damaged


def _commit_or_none(store: Store, shard: int) -> Commit | None:
    try:
        return read_commit(store, commit_name(shard))
    except ShardError:
        return None


def read_shard(store: Store, commit: Commit) -> pa.Table:
    """The rows of a committed shard. Raises ShardError when its bytes are not those that were committed."""
    if not store.exists(commit.file):
        raise ShardError(f"{store.uri}/{commit.file} is committed but missing")
    content = store.read(commit.file)
    if hashlib.sha256(content).hexdigest() != commit.sha256:
        raise ShardError(
            f"{store.uri}/{commit.file} is damaged: its checksum is not that of its commit. Remove the commit record "
            "and run the job again; it writes the same shard"
        )
    table = pa.ipc.open_file(content).read_all()
    if table.num_rows != commit.rows:
        raise ShardError(f"{store.uri}/{commit.file} has {table.num_rows} rows, its commit says {commit.rows}")
    return table


def write_success(store: Store, summary: dict[str, Any]) -> None:
    """Mark a job as complete; the last file of a job."""
    store.put(SUCCESS, json.dumps(summary, sort_keys=True, indent=1).encode())


def verify_output(store: Store) -> list[str]:
    """Every fault of an output folder, one line each: checksums, counts, schema, missing or doubled rows."""
    manifest = read_manifest(store)
    total = int(manifest["plan"]["shards"])
    faults: list[str] = []
    commits: dict[int, Commit] = {}
    for name in store.list("commits"):
        try:
            commit = read_commit(store, name)
            commits[commit.shard] = commit
        except ShardError as error:
            faults.append(str(error))
    missing = [shard for shard in range(total) if shard not in commits]
    if missing:
        faults.append(f"{len(missing)} of {total} shards are not committed (first: {missing[0]})")
    seen: set[int] = set()
    used = sum(commit.sources for commit in commits.values())
    quarantined = sum(commit.quarantined for commit in commits.values())
    for commit in commits.values():
        try:
            table = read_shard(store, commit)
        except ShardError as error:
            faults.append(str(error))
            continue
        if [f"{one.name}: {one.type}" for one in table.schema] != manifest["schema"]:
            faults.append(f"{commit.file}: its schema is not that of the manifest")
        ids = set(table["source_id"].to_pylist())
        if seen & ids:
            faults.append(f"{commit.file}: source row {min(seen & ids)} stands in another shard too")
        if len(ids) != commit.sources:
            faults.append(f"{commit.file}: {len(ids)} source rows, its commit says {commit.sources}")
        seen |= ids
    if not missing and used + quarantined != manifest["plan"]["rows"]:
        faults.append(f"{used} rows used and {quarantined} quarantined, the input has {manifest['plan']['rows']}")
    if not missing and not store.exists(SUCCESS):
        faults.append(f"{SUCCESS} is missing: run the job again to finish it")
    known = {commit.file for commit in commits.values()}
    faults += [f"{name} belongs to no commit" for name in store.list("shards") if name not in known]
    return faults


def remove_orphans(store: Store, live_writers: frozenset[str] = frozenset(), older_than_seconds: float = 3600.0) -> int:
    """Remove shard files without a commit and half-written files; returns how many. Only when every shard is committed.

    Then it is safe even while another driver writes: what it still writes has the name of a committed shard.
    live_writers: runs whose half-written files are left alone; those of unknown writers go by their age.
    """
    known = {commit.file for commit in iter_commits(store)}
    orphans = [name for name in store.list("shards") if name not in known]
    for name in orphans:
        store.delete(name)
    return len(orphans) + store.remove_partials(live_writers, older_than_seconds)
