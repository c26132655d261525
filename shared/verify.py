"""`verify`: every fault of an output folder, found in one pass over all of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from shared.errors import ManifestError, ShardError
from shared.manifest import MANIFEST, Manifest, read_manifest
from shared.output_names import is_own
from shared.shards import SUCCESS, Commit, parse_commit, read_shard
from shared.storage.store import Store
from shared.success import commits_checksum, read_success, success_bytes
from shared.totals import Totals, total


@dataclass(frozen=True, slots=True)
class Verification:
    """Every fault of an output folder, one line each, and the totals of its valid commits."""

    faults: list[str]
    totals: Totals


def verify_output(store: Store) -> Verification:
    """Check every file of an output against every other.

    Raises StoreError, and ManifestError for an empty folder; nothing else, whatever the damage.
    """
    faults: list[str] = []
    if not store.entries():
        read_manifest(store)
    manifest = _manifest(store, faults)
    commits = _commits(store, faults)
    if manifest is not None:
        planned = range(manifest.plan.shards)
        missing = [shard for shard in planned if shard not in commits]
        if missing:
            faults.append(f"{len(missing)} of {len(planned)} shards are not committed (first: {missing[0]})")
        extra = [shard for shard in commits if shard not in planned]
        faults += [f"commits/{shard:05d}.json: the job has only {len(planned)} shards" for shard in extra]
        if not missing:
            faults += _faults_of_the_whole(store, manifest, commits.values())
    schema = None if manifest is None else manifest.schema
    faults += _faults_of_shards(store, schema, commits.values())
    faults += _unknown_files(store, commits.values())
    return Verification(faults, total(commits.values()))


def _manifest(store: Store, faults: list[str]) -> Manifest | None:
    try:
        manifest = read_manifest(store)
    except ManifestError as error:
        faults.append(str(error))
        return None
    if store.read(MANIFEST) != manifest.to_bytes():
        faults.append(f"{MANIFEST} was edited: it is not as a job writes it")
    return manifest


def _commits(store: Store, faults: list[str]) -> dict[int, Commit]:
    commits: dict[int, Commit] = {}
    for name in store.list("commits"):
        if not is_own(name, "commit"):
            continue
        content = store.read(name)
        try:
            commit = parse_commit(store, name, content)
        except ShardError as error:
            faults.append(str(error))
            continue
        shard = int(name.rpartition("/")[2].removesuffix(".json"))
        if commit.shard != shard:
            faults.append(f"{name} contains the commit record of shard {commit.shard}")
        elif json.dumps(json.loads(content), sort_keys=True).encode() != content:
            faults.append(f"{name} was edited: it is not as a job writes it")
        else:
            commits[shard] = commit
    return commits


def _faults_of_shards(store: Store, schema: tuple[str, ...] | None, commits: Iterable[Commit]) -> Iterator[str]:
    seen: set[int] = set()
    sizes = store.sizes("shards")
    for commit in commits:
        yield from _faults_of_quarantine(store, commit)
        if commit.file != f"shards/{commit.shard:05d}-{commit.sha256[:16]}.arrow":
            yield f"commits/{commit.shard:05d}.json names {commit.file}, whose name does not match the checksum"
        try:
            table = read_shard(store, commit)
        except ShardError as error:
            yield str(error)
            continue
        if sizes.get(commit.file) != commit.num_bytes:
            yield f"{commit.file}: its size differs from the {commit.num_bytes} bytes in its commit"
        if schema is not None and tuple(f"{one.name}: {one.type}" for one in table.schema) != schema:
            yield f"{commit.file}: its schema differs from the manifest's"
        if "source_id" not in table.column_names:
            continue
        ids = set(table["source_id"].to_pylist())
        if seen & ids:
            yield f"{commit.file}: source row {min(seen & ids)} is also in another shard"
        if len(ids) != commit.sources:
            yield f"{commit.file}: {len(ids)} source rows, but its commit says {commit.sources}"
        yield from _faults_of_statistics(commit, table)
        seen |= ids


def _faults_of_statistics(commit: Commit, table: pa.Table) -> Iterator[str]:
    samples = commit.statistics.get("samples")
    if samples is not None and samples != table.num_rows - commit.sources:
        yield f"{commit.file}: {table.num_rows - commit.sources} samples, but its commit says {samples:g}"


def _faults_of_quarantine(store: Store, commit: Commit) -> Iterator[str]:
    if bool(commit.quarantined) != (commit.quarantine_file is not None):
        record = f"commits/{commit.shard:05d}.json"
        yield f"{record}: {commit.quarantined} quarantined rows, but file {commit.quarantine_file}"
    if commit.quarantine_file is None:
        return
    if not store.exists(commit.quarantine_file):
        yield f"{commit.quarantine_file} is missing: it holds {commit.quarantined} quarantined rows"
        return
    content = store.read(commit.quarantine_file)
    if commit.quarantine_sha256 is not None and hashlib.sha256(content).hexdigest() != commit.quarantine_sha256:
        yield f"{commit.quarantine_file} is damaged: its checksum differs from the one in its commit"
    elif (rows := content.count(b"\n")) != commit.quarantined:
        yield f"{commit.quarantine_file}: {rows} rows, but its commit says {commit.quarantined}"


def _faults_of_the_whole(store: Store, manifest: Manifest, commits: Iterable[Commit]) -> Iterator[str]:
    used = sum(commit.sources for commit in commits)
    quarantined = sum(commit.quarantined for commit in commits)
    if used + quarantined != manifest.plan.rows:
        yield f"{used} rows used and {quarantined} quarantined, but the input has {manifest.plan.rows}"
    if not store.exists(SUCCESS):
        yield f"{SUCCESS} is missing: run the job again to finish it"
        return
    recorded = read_success(store)
    if recorded is None:
        yield f"{SUCCESS} is damaged: run the job again to rewrite it"
    elif recorded.commits_sha256 is None:
        if recorded.totals != total(commits):
            yield f"{SUCCESS} has different totals from the commits: run the job again to rewrite it"
    elif store.read(SUCCESS) != success_bytes(store, total(commits), commits_checksum(store)):
        yield f"{SUCCESS} does not match the manifest and the commits: one of them was changed after the job ended"


def _unknown_files(store: Store, commits: Iterable[Commit]) -> Iterator[str]:
    known = {f"commits/{commit.shard:05d}.json" for commit in commits}
    known |= {commit.file for commit in commits} | {str(commit.quarantine_file) for commit in commits}
    for folder in ("shards", "commits", "quarantine"):
        for name in store.list(folder):
            # An invalid commit record has a line of its own.
            if name not in known and not is_own(name, "commit"):
                yield f"{name} belongs to no commit"
