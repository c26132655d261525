"""Word vectors: the K nearest words by cosine, for words that are not a single token of the masked LM.

The unit-length rows are in one .npy file that the processes of a node share by memory map. A float32 product for all
words of a shard finds a shortlist, which is then ranked in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from augment_service.engine.vector_cache import CachedVectors, cached_vectors
from shared.embedded import EMBEDDED, embedded_glove_path

Neighbour = tuple[str, float]

_SHORTLIST_MARGIN = 32
_BLOCK_BYTES = 32 << 20
"""Memory of the scores of one block of words: 20 words at a time over 400,000 vectors."""
_SAMPLE_STEP, _SAMPLE_RANK = 64, 8
"""Every 64th score is looked at for a threshold that about 64 x 8 scores reach: far more than a shortlist holds."""
_NEVER = ("<unk>",)
_MAX_KEPT_WORDS = 100_000
"""Bound of the cache of answers; without it, a long-lived process would keep one for every word it ever saw."""


class GloveVectors:
    """Unit-length vectors of the first V words of a file. Use `GloveVectors.load`."""

    def __init__(self, vectors: CachedVectors) -> None:
        self.words, self._unit, self.fingerprint = vectors.words, vectors.unit, vectors.fingerprint
        # A word listed twice gets its last vector, as in the reference's dictionary.
        self._index_of = {word: index for index, word in enumerate(self.words)}
        self._never = [self._index_of[word] for word in _NEVER if word in self._index_of]
        self._never += vectors.zero_rows
        self._cache: dict[tuple[str, int], tuple[Neighbour, ...]] = {}

    @classmethod
    def load(cls, path: str, limit: int | None = None) -> GloveVectors:
        """Load `embedded`, a file of any format of `vector_files`, or a folder with .npy and index.parquet.

        limit: use only the first V words. Raises ModelError naming the line if the file is malformed.
        """
        return cls(cached_vectors(str(embedded_glove_path()) if path == EMBEDDED else path, limit))

    def nearest(self, words: Sequence[str], k: int) -> dict[str, tuple[Neighbour, ...]]:
        """Per word its K nearest (word, cosine) without itself, best first; empty for a word without a vector."""
        if len(self._cache) > _MAX_KEPT_WORDS:
            self._cache.clear()
        missing = [word for word in dict.fromkeys(words) if (word, k) not in self._cache]
        known = [word for word in missing if word in self._index_of]
        for word in set(missing) - set(known):
            self._cache[word, k] = ()
        block = max(_BLOCK_BYTES // (4 * max(len(self._unit), 1)), 1)
        for start in range(0, len(known), block):
            part = known[start : start + block]
            for word, neighbours in zip(part, self._rank(part, k), strict=True):
                self._cache[word, k] = neighbours
        return {word: self._cache[word, k] for word in dict.fromkeys(words)}

    def check(self) -> None:
        """Rank the neighbours of the first word, without the cache: no working process fails on it."""
        self._rank(self.words[:1], 1)

    def _rank(self, words: Sequence[str], k: int) -> list[tuple[Neighbour, ...]]:
        index = np.asarray([self._index_of[word] for word in words])
        queries = np.asarray(self._unit[index])
        scores = queries @ self._unit.T
        scores[:, self._never] = -np.inf
        shortlist = largest(scores, k + _SHORTLIST_MARGIN)
        results: list[tuple[Neighbour, ...]] = []
        for row, own in enumerate(index.tolist()):
            if not np.any(queries[row]):
                results.append(())
                continue
            ids = np.sort(shortlist[row])
            exact = self._unit[ids].astype(np.float64)
            exact /= np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), 1e-30)
            query = queries[row].astype(np.float64)
            cosines = exact @ (query / np.linalg.norm(query))
            cosines[~np.isfinite(scores[row, ids])] = -np.inf
            best = ids[np.lexsort((ids, -cosines))]
            cosine_of = dict(zip(ids.tolist(), cosines.tolist(), strict=True))
            neighbours: dict[str, float] = {}
            for one in best.tolist():
                word = self.words[one]
                # If the file lists a word again, its earlier row is not its vector.
                is_current = self._index_of[word] == one
                if one != own and word != words[row] and is_current and np.isfinite(cosine_of[one]):
                    neighbours.setdefault(word, cosine_of[one])
            results.append(tuple(list(neighbours.items())[:k]))
        return results


def largest(scores: NDArray[np.float32], count: int) -> list[NDArray[np.int64]]:
    """Per row the indices of its `count` largest scores, in no order.

    scores: (rows, vectors) float32, -inf for what is left out. A threshold from a sample of the row leaves a few
    hundred scores to choose from, which takes a fraction of the time and memory of partitioning the whole row.
    """
    count = min(count, scores.shape[1])
    sample = scores[:, ::_SAMPLE_STEP]
    if sample.shape[1] < 2 * _SAMPLE_RANK:
        return list(np.argpartition(scores, -count, axis=1)[:, -count:])
    thresholds = np.partition(sample, -_SAMPLE_RANK, axis=1)[:, -_SAMPLE_RANK]
    found: list[NDArray[np.int64]] = []
    for row, threshold in zip(scores, thresholds, strict=True):
        candidates = np.flatnonzero(row >= threshold)
        if len(candidates) < count:
            found.append(np.argpartition(row, -count)[-count:])
        else:
            found.append(candidates[np.argpartition(row[candidates], -count)[-count:]])
    return found
