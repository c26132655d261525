"""The Ray actor that holds the word vectors on a node. A separate module, so that its process does not load torch."""

from __future__ import annotations

from collections.abc import Sequence

from augment_service.engine.glove import GloveVectors
from augment_service.job.model_facts import VectorFacts
from augment_service.job.node_view import check_model_seen


class GloveWorker:
    """Holds the word vectors of a job on one node; processes on a node share their memory through the page cache."""

    def load(self, path: str, limit: int | None) -> VectorFacts:
        """Load the vectors. Raises ModelError."""
        check_model_seen("--glove", path)
        self._vectors = GloveVectors.load(path, limit)
        return VectorFacts(fingerprint=self._vectors.fingerprint, words=len(self._vectors.words))

    def nearest(self, words: Sequence[str], k: int) -> dict[str, tuple[tuple[str, float], ...]]:
        """Per word its K nearest (word, cosine)."""
        return self._vectors.nearest(words, k)
