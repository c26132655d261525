"""`_SUCCESS`, the last file of a job: its totals, and checksums that tie them to the manifest and the commits."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields

from shared.manifest import MANIFEST
from shared.output_names import is_own
from shared.shards import SUCCESS
from shared.storage.store import Store
from shared.totals import Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class Success:
    """What `_SUCCESS` records. The checksums are None in outputs of version 0.1.0."""

    totals: Totals
    manifest_sha256: str | None = None
    commits_sha256: str | None = None


def success_bytes(store: Store, totals: Totals) -> bytes:
    """The content of the file for the manifest and commits that the output has now. Raises StoreError."""
    manifest = store.read(MANIFEST) if store.exists(MANIFEST) else b""
    commits = hashlib.sha256()
    for name in store.list("commits"):
        if is_own(name, "commit"):
            commits.update(store.read(name))
    checksums = {
        "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
        "commits_sha256": commits.hexdigest(),
    }
    return json.dumps(asdict(totals) | checksums, sort_keys=True, indent=1).encode()


def write_success(store: Store, totals: Totals) -> None:
    """Mark a job as complete; the last file that a job writes. Raises StoreError."""
    store.put(SUCCESS, success_bytes(store, totals))


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
