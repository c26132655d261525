"""What actors report about the models they have loaded: the `models` entry of the manifest."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class MlmFacts:
    """The masked LM of an actor.

    fingerprint: sha256 of weights and vocabulary; arithmetic: version of the encoder's arithmetic; hardware: kind of
    CPU or GPU; torch, transformers: versions. batch_tokens: tokens per model batch, as asked for or as this actor found
    best; a job keeps those of its first actor.
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
    """The word vectors of a node. fingerprint: sha256 of the vectors; words: how many there are."""

    fingerprint: str
    words: int


def models_facts(mlm: MlmFacts, vectors: VectorFacts) -> dict[str, Any]:
    """Both, ready for JSON, as they go into the manifest."""
    return {"mlm": asdict(mlm), "glove": asdict(vectors)}
