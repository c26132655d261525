"""A model folder in an object store -> a copy on this machine's disk, made once for each version of its files.

Trade-off: copies are never removed automatically, but may be deleted at any time.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from shared.errors import InputError, ModelError, StoreError
from shared.storage.input_files import open_binary
from shared.storage.objects import client_of, split_uri, with_retries

logger = logging.getLogger(__name__)

ENVIRONMENT = ("TRAINER_CACHE", "AUGMENT_SERVICE_CACHE", "XDG_CACHE_HOME")
COPY_BYTES = 8 << 20
CONFIG, RESULT, COMMAND = "config.json", "result.json", "command"
STATE_FOLDERS = ("run-state/", "tensorboard/")


@functools.cache
def fetched_model(uri: str, option: str) -> str:
    """The local copy of a model, or of the model of a finished run; the same one for the rest of this process.

    Raises ModelError if the model is missing, StoreError.
    """
    uri = uri.rstrip("/")
    objects = _objects(uri)
    if CONFIG not in objects:
        raise ModelError(f"{option} {uri}: no model found ({CONFIG} is missing)")
    if _is_run(f"{uri}/{CONFIG}"):
        if RESULT not in objects or f"model/{CONFIG}" not in objects:
            raise ModelError(f"{option} {uri} is the output of a run that has not finished: it has no model/ yet")
        uri = f"{uri}/model"
        objects = {name.removeprefix("model/"): one for name, one in objects.items() if name.startswith("model/")}
    facts = _facts(uri, objects)
    base = next((os.environ[name] for name in ENVIRONMENT if os.environ.get(name)), str(Path.home() / ".cache"))
    folder = Path(base) / "tinybert-models" / hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]
    if folder.is_dir():
        return str(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{folder.name}.partial-", dir=folder.parent) as temporary:
            whole = Path(temporary) / "model"
            for name in objects:
                _download(f"{uri}/{name}", whole / name)
            if _facts(uri, _objects(uri)) != facts:
                raise StoreError(f"{option} {uri} was replaced while it was being read; run the command again")
            # Another process may have won the race; its copy has the same content.
            if not folder.is_dir():
                whole.rename(folder)
    except OSError as error:
        if not folder.is_dir():
            raise StoreError(f"{folder}: {error.strerror or error}") from error
    logger.info("model_fetched", extra={"fields": {"from": uri, "to": str(folder)}})
    return str(folder)


def _facts(uri: str, objects: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """What identifies the version of a model's files."""
    return [uri, sorted((name, one["size"], one["e_tag"]) for name, one in objects.items())]


def _objects(uri: str) -> dict[str, Mapping[str, Any]]:
    """Name under the URI -> size and e_tag of an object, without a run's state files. Raises StoreError."""
    import obstore

    root, prefix = split_uri(uri)

    def listed() -> dict[str, Mapping[str, Any]]:
        found = [one for page in obstore.list(client_of(root), prefix or None, chunk_size=1000) for one in page]
        start = f"{prefix}/" if prefix else ""
        return {one["path"].removeprefix(start): one for one in found if one["path"].startswith(start)}

    objects = with_retries(f"list {uri}", listed)
    return {
        name: one
        for name, one in objects.items()
        if not name.startswith(STATE_FOLDERS) and ".." not in PurePosixPath(name).parts
    }


def _is_run(uri: str) -> bool:
    """Whether a configuration belongs to a training command rather than to a model."""
    with open_binary(uri) as file:
        try:
            options = json.load(file)
        except ValueError:
            return False
    return isinstance(options, dict) and COMMAND in options


def _download(uri: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open_binary(uri) as source, path.open("wb") as file:
            shutil.copyfileobj(source, file, COPY_BYTES)
    except InputError as error:
        raise StoreError(f"{uri} was replaced or removed while it was being read; run the command again") from error
