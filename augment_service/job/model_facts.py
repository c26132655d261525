"""Facts that actors report about their loaded models: the `models` entry of the manifest."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class MlmFacts:
    """The masked LM of an actor.

    fingerprint: sha256 of weights and vocabulary; arithmetic: version of the encoder's arithmetic; hardware: kind of
    CPU or GPU; torch, transformers: versions. batch_tokens: tokens per model batch, as configured or measured by this
    actor; a job keeps its first actor's value.
    """

    fingerprint: str
    device: str
    arithmetic: int
    hardware: str
    dtype: str
    torch: str
    transformers: str
    batch_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorFacts:
    """The word vectors of a node. fingerprint: sha256 of the vectors; words: their number."""

    fingerprint: str
    words: int


def models_facts(mlm: MlmFacts, vectors: VectorFacts) -> dict[str, Any]:
    """Both, JSON-ready, as stored in the manifest."""
    return {"mlm": asdict(mlm), "glove": asdict(vectors)}
