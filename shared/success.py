"""`_SUCCESS`, the last file of a job: its totals, and checksums that tie them to the manifest and the commits."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields

from shared.manifest import MANIFEST
from shared.shards import SUCCESS, commit_names, iter_records
from shared.storage.store import Store
from shared.totals import Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class Success:
    """Contents of `_SUCCESS`. The checksums are None in outputs of version 0.1.0."""

    totals: Totals
    manifest_sha256: str | None = None
    commits_sha256: str | None = None


def commits_checksum(store: Store) -> str:
    """Hex digest of all commit records, in the order of their names. Raises StoreError."""
    digest = hashlib.sha256()
    for content in iter_records(store, commit_names(store)):
        digest.update(content)
    return digest.hexdigest()


def success_bytes(store: Store, totals: Totals, commits_sha256: str) -> bytes:
    """The content of the file for these commits and the output's current manifest. Raises StoreError."""
    manifest = store.read(MANIFEST) if store.exists(MANIFEST) else b""
    checksums = {"manifest_sha256": hashlib.sha256(manifest).hexdigest(), "commits_sha256": commits_sha256}
    return json.dumps(asdict(totals) | checksums, sort_keys=True, indent=1).encode()


def write_success(store: Store, totals: Totals, commits_sha256: str | None = None) -> None:
    """Mark a job complete with the last file that it writes. Raises StoreError.

    commits_sha256: `commits_checksum`, if the caller has already computed it.
    """
    store.put(SUCCESS, success_bytes(store, totals, commits_sha256 or commits_checksum(store)))


def read_success(store: Store) -> Success | None:
    """The record of a complete job; None if it is damaged. Raises StoreError."""
    names = {field.name for field in fields(Totals)}
    checksums = {"manifest_sha256", "commits_sha256"}
    try:
        loaded = json.loads(store.read(SUCCESS))
        if not isinstance(loaded, dict) or set(loaded) not in (names, names | checksums):
            return None
        totals = Totals(**{name: loaded[name] for name in names})
        return Success(totals=totals, **{name: loaded[name] for name in checksums & set(loaded)})
    except ValueError:
        return None
