"""The manifest of a job: configuration, inputs, models and shard plan. Written once; a resumed job must match it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, model_validator

from shared.cli.table_format import DETECTED, ONE_LABEL
from shared.errors import ManifestError
from shared.json_text import parse_json, short_json, to_json_object
from shared.label_quotas import LabelQuotas
from shared.params import STOP_WORDS_OF_MODE, AugmentParams
from shared.schema import FORMAT_VERSION
from shared.storage.input_files import InputFile
from shared.storage.local_paths import absolute_model
from shared.storage.store import Store

MANIFEST = "manifest.json"


_ADDED: dict[str, Any] = {"case": "keep", "protect": [], "protect_words": [], "stop_words": list(STOP_WORDS_OF_MODE)}
"""Options missing from manifests of version 0.1.0, with the values that match its behaviour."""


class JobConfig(AugmentParams):
    """Every option that decides a job's output. The fields declared here are those that readers of the output need."""

    model_config = ConfigDict(extra="allow")

    emit: Literal["samples", "candidates"]
    task: str | None

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        """Raise for missing options: one that was not recorded must not silently get its default."""
        for name in AugmentParams.model_fields:
            if name not in self.model_fields_set and name not in _ADDED:
                raise ValueError(f"{name} is missing")
        return self

    def params(self) -> AugmentParams:
        """The options that decide a text's samples."""
        known = {name: getattr(self, name) for name in AugmentParams.model_fields}
        return AugmentParams(**known | {name: _ADDED[name] for name in _ADDED if name not in self.model_fields_set})

    @property
    def quotas(self) -> LabelQuotas:
        """N_a of each label that has its own."""
        recorded = self.model_extra or {}
        return LabelQuotas.parse(recorded.get("n_a_per_label", ()), recorded.get("n_a_unlabelled"))

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        """Disables filling in: unrecorded options follow the version that wrote the manifest."""
        return values


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlan:
    """How the input's rows are split into shards: by position, `shard_rows` per shard; the last one may be shorter."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    rows: int
    shard_rows: int
    shards: int

    @classmethod
    def cut(cls, rows: int, shard_rows: int) -> ShardPlan:
        """The plan of an input of `rows` rows."""
        return cls(rows=rows, shard_rows=shard_rows, shards=-(-rows // shard_rows))

    def rows_of(self, shard: int) -> int:
        """Rows of one shard, quarantined ones included."""
        return min(self.shard_rows, self.rows - shard * self.shard_rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A job's manifest.

    schema: one "name: type" per column of a shard.
    models: what the masked-LM and vector actors reported after loading, under "mlm" and "glove".
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    config: JobConfig
    inputs: tuple[InputFile, ...]
    models: dict[str, Any]
    plan: ShardPlan
    schema: tuple[str, ...]
    format_version: int = FORMAT_VERSION

    def to_bytes(self) -> bytes:
        """The content of the file."""
        return json.dumps(to_json_object(self), indent=1, sort_keys=True, ensure_ascii=False).encode()

    def fingerprint(self) -> str:
        """sha256 hex of the file's content: changes with anything that decides the job's output."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Header:
    """The one field that all format versions share."""

    format_version: int


def write_or_check(store: Store, manifest: Manifest, *, models_by_content: bool = False) -> bool:
    """Write the manifest, or check that the existing one is of the same job; True if the job is new.

    Inputs are compared by content and suffix. models_by_content: compare `models` (what was loaded) instead of the
    paths of models. Raises ManifestError naming the first fields that differ.
    """
    if not store.exists(MANIFEST) and store.put_if_absent(MANIFEST, manifest.to_bytes()):
        return True
    found = to_json_object(read_manifest(store))
    found = found | {"config": DETECTED | ONE_LABEL | _ADDED | found["config"]}
    wanted = to_json_object(manifest)
    batch_tokens = _batch_tokens(found)
    found = _with_batch_tokens(found, batch_tokens)
    # If batch_tokens is auto, keep the value measured by the job's first actor.
    wanted = _with_batch_tokens(wanted, wanted["config"].get("batch_tokens") or batch_tokens)
    differing = _differences("", _by_content(found, models_by_content), _by_content(wanted, models_by_content))
    if differing:
        raise ManifestError(
            f"{store.uri} belongs to another job: {'; '.join(differing[:3])}. Use another --output, or delete this one"
        )
    return False


def batch_tokens_of(manifest: Manifest) -> int:
    """Tokens per model batch of a job: as configured, or as measured by its first actor. Raises ManifestError."""
    found = _batch_tokens(to_json_object(manifest))
    if found is None:
        raise ManifestError(f"{MANIFEST} does not record the number of tokens per model batch")
    return found


def _batch_tokens(manifest: dict[str, Any]) -> int | None:
    found: int | None = manifest["config"].get("batch_tokens") or manifest["models"].get("mlm", {}).get("batch_tokens")
    return found


def _with_batch_tokens(manifest: dict[str, Any], batch_tokens: int | None) -> dict[str, Any]:
    """The manifest as if this number had been configured."""
    models = dict(manifest["models"])
    if "mlm" in models:
        models["mlm"] = {name: value for name, value in models["mlm"].items() if name != "batch_tokens"}
    return manifest | {"models": models, "config": manifest["config"] | {"batch_tokens": batch_tokens}}


def _by_content(manifest: dict[str, Any], models_by_content: bool) -> dict[str, Any]:
    """The parts of a manifest that identify a job, without the locations of its files."""
    config = {name: value for name, value in manifest["config"].items() if name != "input"}
    for name in ("mlm", "glove"):
        if name in config:
            # Earlier versions recorded paths as given.
            config[name] = None if models_by_content else absolute_model(str(config[name]))
    inputs = [one | {"file": "".join(PurePosixPath(one["file"]).suffixes[-2:])} for one in manifest["inputs"]]
    return manifest | {"config": config, "inputs": [f"{one['sha256']} {one['file']}" for one in inputs]}


def read_manifest(store: Store) -> Manifest:
    """The manifest of an output folder. Raises ManifestError if it is missing or has another version or shape."""
    if not store.exists(MANIFEST):
        raise ManifestError(f"{store.uri} has no {MANIFEST}: it is not an output folder of `augment_service run`")
    content = store.read(MANIFEST)
    try:
        version = parse_json(_Header, content).format_version
        if version == FORMAT_VERSION:
            return parse_json(Manifest, content)
    except ValueError as error:
        raise ManifestError(f"{store.uri}/{MANIFEST} was not written by `augment_service run`: {error}") from error
    raise ManifestError(f"{store.uri} has format version {version}, but this code reads version {FORMAT_VERSION}")


def _differences(name: str, found: Any, wanted: Any) -> list[str]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = sorted(set(found) | set(wanted))
        return [
            line for key in keys for line in _differences(f"{name}.{key}".strip("."), found.get(key), wanted.get(key))
        ]
    return [] if found == wanted else [f"{name} was {short_json(found)}, now {short_json(wanted)}"]
