"""Checks and repair of an output folder: damaged commits are revoked, every fault is listed, leftovers are removed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from shared.errors import ShardError
from shared.manifest import Manifest, read_manifest
from shared.shards import (
    READERS,
    SUCCESS,
    Commit,
    commit_name,
    committed_shards,
    iter_commits,
    read_commit,
    read_shard,
)
from shared.storage.store import Store
from shared.totals import Totals, total


@dataclass(frozen=True, slots=True)
class Verification:
    """Every fault of an output folder, one line each, and the totals of its valid commits."""

    faults: list[str]
    totals: Totals


def revoke_damaged(store: Store, read_all: bool) -> list[int]:
    """Delete commits whose shard file is missing, has another size or (with `read_all`) another checksum.

    Returns their shard numbers; the job then recomputes those shards, byte for byte. Invalid commit records are deleted
    as well.
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


def verify_output(store: Store) -> Verification:
    """Check checksums, counts and schema, and look for missing or duplicate rows. Raises ManifestError, StoreError."""
    manifest = read_manifest(store)
    commits: dict[int, Commit] = {}
    faults: list[str] = []
    for name in store.list("commits"):
        try:
            commit = read_commit(store, name)
        except ShardError as error:
            faults.append(str(error))
        else:
            commits[commit.shard] = commit
    missing = [shard for shard in range(manifest.plan.shards) if shard not in commits]
    if missing:
        faults.append(f"{len(missing)} of {manifest.plan.shards} shards are not committed (first: {missing[0]})")
    faults += _faults_of_shards(store, manifest, commits.values())
    if not missing:
        faults += _faults_of_the_whole(store, manifest, commits.values())
    known = {commit.file for commit in commits.values()}
    faults += [f"{name} belongs to no commit" for name in store.list("shards") if name not in known]
    return Verification(faults, total(commits.values()))


def _faults_of_shards(store: Store, manifest: Manifest, commits: Iterable[Commit]) -> Iterator[str]:
    seen: set[int] = set()
    for commit in commits:
        try:
            table = read_shard(store, commit)
        except ShardError as error:
            yield str(error)
            continue
        if tuple(f"{one.name}: {one.type}" for one in table.schema) != manifest.schema:
            yield f"{commit.file}: its schema differs from the manifest's"
        ids = set(table["source_id"].to_pylist())
        if seen & ids:
            yield f"{commit.file}: source row {min(seen & ids)} is in another shard as well"
        if len(ids) != commit.sources:
            yield f"{commit.file}: {len(ids)} source rows, its commit says {commit.sources}"
        seen |= ids


def _faults_of_the_whole(store: Store, manifest: Manifest, commits: Iterable[Commit]) -> Iterator[str]:
    used = quarantined = 0
    for commit in commits:
        used += commit.sources
        quarantined += commit.quarantined
    if used + quarantined != manifest.plan.rows:
        yield f"{used} rows used and {quarantined} quarantined, the input has {manifest.plan.rows}"
    if not store.exists(SUCCESS):
        yield f"{SUCCESS} is missing: run the job again to finish it"


def remove_orphans(store: Store, live_writers: frozenset[str] = frozenset(), older_than_seconds: float = 3600.0) -> int:
    """Remove shard files without a commit and half-written files; returns how many. Only when every shard is committed.

    By then it is safe even while another driver is writing: what it still writes has the name of a committed shard.
    live_writers: runs whose half-written files are kept; those of unknown writers are removed once they are old.
    """
    known = {commit.file for commit in iter_commits(store)}
    orphans = [name for name in store.list("shards") if name not in known]
    for name in orphans:
        store.delete(name)
    return len(orphans) + store.remove_partials(live_writers, older_than_seconds)
