"""The Ray actor that holds the word vectors on a node. A separate module, so that its process does not load torch."""

from __future__ import annotations

from collections.abc import Sequence

from augment_service.engine.glove import GloveVectors
from augment_service.job.model_facts import VectorFacts
from augment_service.job.node_view import check_model_seen


class GloveWorker:
    """Holds the word vectors of a job on one node; processes on a node share their memory through the page cache.

    Ray orders calls per caller only, so a masked-LM actor's call may arrive before the driver's `load`: the first call
    loads.
    """

    def __init__(self, path: str, limit: int | None) -> None:
        self._path, self._limit = path, limit
        self._loaded: GloveVectors | None = None

    def load(self) -> VectorFacts:
        """Load the vectors if not loaded yet. Raises ModelError."""
        vectors = self._vectors()
        return VectorFacts(fingerprint=vectors.fingerprint, words=len(vectors.words))

    def nearest(self, words: Sequence[str], k: int) -> dict[str, tuple[tuple[str, float], ...]]:
        """The K nearest (word, cosine) of each word. Raises ModelError."""
        return self._vectors().nearest(words, k)

    def check(self) -> None:
        """Health check: rank the neighbours of a known word."""
        self._vectors().check()

    def _vectors(self) -> GloveVectors:
        if self._loaded is None:
            check_model_seen("--glove", self._path)
            self._loaded = GloveVectors.load(self._path, self._limit)
        return self._loaded
