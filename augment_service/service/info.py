"""Contents of /info: version, models and limits. Enough to tell whether a service and a job give the same samples."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import PurePath
from typing import Any

from augment_service.config import ServeConfig
from augment_service.engine.glove import GloveVectors
from augment_service.engine.masked_lm import MaskedLM
from augment_service.service.limits import STREAM_FACTOR, Limits

_DTYPES = {"float32": "fp32", "bfloat16": "bf16"}
"""Names as in the option --dtype."""
PACKAGE = "tinybert-augment-distill"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """One model. name: as configured, a path shortened to its last part; fingerprint: as in a manifest."""

    name: str
    fingerprint: str
    details: dict[str, str | int]


def of_masked_lm(config: ServeConfig, masked_lm: MaskedLM, batch_tokens: int) -> ModelInfo:
    """Facts of the masked LM. Hashes the weights, which takes about a second per 500 MB."""
    dtype = str(masked_lm.dtype).removeprefix("torch.")
    details: dict[str, str | int] = {
        "dtype": _DTYPES.get(dtype, dtype),
        "device": masked_lm.device,
        "batch_tokens": batch_tokens,
    }
    return ModelInfo(name=_name(config.mlm), fingerprint=masked_lm.fingerprint(), details=details)


def of_vectors(config: ServeConfig, vectors: GloveVectors) -> ModelInfo:
    """Facts of the word vectors."""
    details: dict[str, str | int] = {"words": len(vectors.words)}
    return ModelInfo(name=_name(config.glove), fingerprint=vectors.fingerprint, details=details)


def build_info() -> dict[str, str]:
    """Versions of the running software."""
    return {"version": version(PACKAGE), "python": platform.python_version()}


def info(
    models: Mapping[str, ModelInfo] | None, limits: Limits, max_answer_bytes: int, needs_token: bool
) -> dict[str, Any]:
    """The response of /info. models: None while they are loading."""
    shown = {}
    for kind, one in (models or {}).items():
        shown[kind] = {"name": one.name, "fingerprint": one.fingerprint, **one.details}
    stream = {"max_stream_texts": limits.max_texts * STREAM_FACTOR, "max_answer_bytes": max_answer_bytes}
    return {**build_info(), "models": shown, "limits": asdict(limits) | stream, "needs_token": needs_token}


def _name(given: str) -> str:
    # A path may reveal the layout of the operator's machine; a hub's OWNER/NAME does not.
    return PurePath(given).name if given.startswith((".", "/", "~")) or given.count("/") > 1 else given
