"""The Ray actor that holds the word vectors on a node. A module of its own, so that its process loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from augment_service.engine.glove import GloveVectors


class GloveWorker:
    """Holds the word vectors of a job on one node; the page cache shares their memory with every process there."""

    def load(self, path: str, limit: int | None) -> dict[str, Any]:
        """Load; returns what goes into the manifest. Raises ModelError."""
        self._vectors = GloveVectors.load(path, limit)
        return {"fingerprint": self._vectors.fingerprint, "words": len(self._vectors.words)}

    def nearest(self, words: Sequence[str], k: int) -> dict[str, tuple[tuple[str, float], ...]]:
        """Per word its K nearest (word, cosine)."""
        return self._vectors.nearest(words, k)
