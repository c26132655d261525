"""A run in an object store, finished or not -> a folder on this machine with what the report reads."""

from __future__ import annotations

from pathlib import Path

from shared.errors import InputError
from shared.model_folder import CONFIG
from shared.storage.remote_model import fetched_model
from shared.storage.store import Store, open_store
from trainer.remote_run import newest_state
from trainer.run_folder import METRICS, RESULT


def fetch_run(uri: str, folder: Path) -> Path:
    """Copy configuration, result and metrics of a run into `folder`, which is created, and link its model there.

    Returns the folder. Raises InputError if nothing there is a run, StoreError, ManifestError, ModelError.
    """
    uri = uri.rstrip("/")
    store = open_store(uri)
    if not store.exists(CONFIG):
        raise InputError(f"--runs {uri}: not a run of the trainer (it has no {CONFIG})")
    folder.mkdir(parents=True)
    (folder / CONFIG).write_bytes(store.read(CONFIG))
    is_finished = store.exists(RESULT)
    (folder / METRICS).write_bytes(_metrics(store, uri, is_finished))
    if is_finished:
        (folder / RESULT).write_bytes(store.read(RESULT))
        (folder / "model").symlink_to(fetched_model(uri, "--runs"))
    return folder


def _metrics(store: Store, uri: str, is_finished: bool) -> bytes:
    """The metrics so far; a run that goes on has them among the files of its state."""
    if is_finished:
        return store.read(METRICS) if store.exists(METRICS) else b""
    _, files = newest_state(store, uri)
    return store.read(files[METRICS].object) if METRICS in files else b""
