"""The manifest: what a job was asked, by which code and models. Written once; a resumed job must match it."""

from __future__ import annotations

import json
from typing import Any

from shared.errors import ManifestError
from shared.schema import FORMAT_VERSION
from shared.storage.store import Store

MANIFEST = "manifest.json"


def write_or_check(store: Store, manifest: dict[str, Any]) -> bool:
    """Write the manifest, or check that the one there is equal; True when the job is a new one.

    Raises ManifestError that names the first differing field.
    """
    wanted = json.loads(json.dumps({"format_version": FORMAT_VERSION} | manifest))
    content = json.dumps(wanted, indent=1, sort_keys=True, ensure_ascii=False).encode()
    if not store.exists(MANIFEST) and store.put_if_absent(MANIFEST, content):
        return True
    found = read_manifest(store)
    differing = _differences("", found, wanted)
    if differing:
        raise ManifestError(
            f"{store.uri} holds another job: {'; '.join(differing[:3])}. Use another --output, or remove the folder"
        )
    return False


def read_manifest(store: Store) -> dict[str, Any]:
    """The manifest of an output folder. Raises ManifestError when there is none or it is of another version."""
    if not store.exists(MANIFEST):
        raise ManifestError(f"{store.uri} holds no {MANIFEST}: it is no output folder of `augment_service run`")
    try:
        manifest: dict[str, Any] = json.loads(store.read(MANIFEST))
    except ValueError as error:
        raise ManifestError(f"{store.uri}/{MANIFEST} is no JSON: {error}") from error
    if manifest.get("format_version") != FORMAT_VERSION:
        raise ManifestError(
            f"{store.uri} has format version {manifest.get('format_version')}; this code reads {FORMAT_VERSION}"
        )
    return manifest


def _differences(name: str, found: Any, wanted: Any) -> list[str]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = sorted(set(found) | set(wanted))
        return [
            line for key in keys for line in _differences(f"{name}.{key}".strip("."), found.get(key), wanted.get(key))
        ]
    return [] if found == wanted else [f"{name} was {_short(found)}, now {_short(wanted)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
