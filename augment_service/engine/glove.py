"""Word vectors: the K nearest words by cosine, for words that are not a single token of the masked LM.

The unit-length rows are in one .npy file that the processes of a node share by memory mapping. A float32 product for
all words of a shard finds a shortlist, which is then ranked in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from augment_service.engine.vector_cache import CachedVectors, cached_vectors
from shared.embedded import EMBEDDED, embedded_glove_path

Neighbour = tuple[str, float]

_SHORTLIST_MARGIN = 32
_BLOCK_WORDS, _BLOCK_VECTORS = 512, 1024
"""Words x vectors scored at a time: 2 MiB, which fits into a core's cache."""
_SAMPLE_STEP, _SAMPLE_RANK = 64, 8
"""Every 64th vector is sampled for a threshold that about 64 x 8 scores exceed, far more than a shortlist needs."""
_MOST_ABOVE = 16 * _SAMPLE_STEP * _SAMPLE_RANK
"""Limit of scores above the threshold per word. More mean ties, or a file order that the sample misrepresents."""
_NEVER = ("<unk>",)
_MAX_KEPT_WORDS = 100_000
"""Limit of the answer cache; without it, a long-lived process would keep an entry for every word it ever saw."""


class GloveVectors:
    """Unit-length vectors of the first V words of a file. Use `GloveVectors.load`."""

    def __init__(self, vectors: CachedVectors) -> None:
        self.words, self._unit, self.fingerprint = vectors.words, vectors.unit, vectors.fingerprint
        # A word listed twice gets its last vector, as in the reference's dictionary.
        self._index_of = {word: index for index, word in enumerate(self.words)}
        self._never = [self._index_of[word] for word in _NEVER if word in self._index_of]
        self._never += vectors.zero_rows
        self._sample: NDArray[np.float32] | None = None
        self._cache: dict[tuple[str, int], tuple[Neighbour, ...]] = {}

    @classmethod
    def load(cls, path: str, limit: int | None = None) -> GloveVectors:
        """Load `embedded`, a file of any format of `vector_files`, or a folder with .npy and index.parquet.

        limit: use only the first V words. Raises ModelError naming the line if the file is malformed.
        """
        return cls(cached_vectors(str(embedded_glove_path()) if path == EMBEDDED else path, limit))

    def nearest(self, words: Sequence[str], k: int) -> dict[str, tuple[Neighbour, ...]]:
        """The K nearest (word, cosine) of each word except itself, best first; empty for a word without a vector."""
        if len(self._cache) > _MAX_KEPT_WORDS:
            self._cache.clear()
        missing = [word for word in dict.fromkeys(words) if (word, k) not in self._cache]
        known = [word for word in missing if word in self._index_of]
        for word in set(missing) - set(known):
            self._cache[word, k] = ()
        for start in range(0, len(known), _BLOCK_WORDS):
            part = known[start : start + _BLOCK_WORDS]
            for word, neighbours in zip(part, self._rank(part, k), strict=True):
                self._cache[word, k] = neighbours
        return {word: self._cache[word, k] for word in dict.fromkeys(words)}

    def check(self) -> None:
        """Health check: rank the neighbours of the first word, bypassing the cache."""
        self._rank(self.words[:1], 1)

    def _rank(self, words: Sequence[str], k: int) -> list[tuple[Neighbour, ...]]:
        index = np.asarray([self._index_of[word] for word in words])
        queries = np.asarray(self._unit[index])
        if self._sample is None:
            self._sample = np.ascontiguousarray(self._unit[::_SAMPLE_STEP])
        shortlist = shortlists(queries, self._unit, self._sample, self._never, k + _SHORTLIST_MARGIN)
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
            best = ids[np.lexsort((ids, -cosines))]
            cosine_of = dict(zip(ids.tolist(), cosines.tolist(), strict=True))
            neighbours: dict[str, float] = {}
            for one in best.tolist():
                word = self.words[one]
                # If the file repeats a word, only its last row counts.
                is_current = self._index_of[word] == one
                if one != own and word != words[row] and is_current:
                    neighbours.setdefault(word, cosine_of[one])
            results.append(tuple(list(neighbours.items())[:k]))
        return results


def shortlists(
    queries: NDArray[np.float32],
    vectors: NDArray[np.float32],
    sample: NDArray[np.float32],
    never: Sequence[int],
    count: int,
) -> list[NDArray[np.int64]]:
    """For each query the indices of its `count` largest products with the vectors, unordered; fewer if V is smaller.

    queries: (words, D) float32; vectors: (V, D) float32; sample: every 64th vector; never: indices to exclude.
    A threshold from the sample leaves a few hundred products per query, and products are held for one block of vectors
    at a time, so this takes a fraction of the time and memory of all products.
    """
    if len(sample) < 2 * _SAMPLE_RANK:
        return [_largest(query, vectors, never, count) for query in queries]
    thresholds = np.partition(queries @ sample.T, -_SAMPLE_RANK, axis=1)[:, -_SAMPLE_RANK, None]
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
    num_above = 0
    for start in range(0, len(vectors), _BLOCK_VECTORS):
        scores = queries @ vectors[start : start + _BLOCK_VECTORS].T
        above = np.flatnonzero(scores >= thresholds)
        num_above += len(above)
        if num_above > _MOST_ABOVE * len(queries):
            return [_largest(query, vectors, never, count) for query in queries]
        rows, columns = np.divmod(above, scores.shape[1])
        parts.append((rows, columns + start, scores.ravel()[above]))
    rows, ids, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
    is_left_out = np.zeros(len(vectors), dtype=np.bool_)
    is_left_out[list(never)] = True
    order = np.argsort(rows, kind="stable")
    order = order[~is_left_out[ids[order]]]
    ends = np.searchsorted(rows[order], np.arange(len(queries)), side="right").tolist()
    found: list[NDArray[np.int64]] = []
    for query, start, end in zip(queries, [0, *ends], ends, strict=False):
        own = order[start:end]
        if len(own) < count:
            found.append(_largest(query, vectors, never, count))
        else:
            found.append(ids[own[np.argpartition(scores[own], -count)[-count:]]])
    return found


def _largest(
    query: NDArray[np.float32], vectors: NDArray[np.float32], never: Sequence[int], count: int
) -> NDArray[np.int64]:
    """As `shortlists` for one query, from all of its products."""
    scores = vectors @ query
    scores[list(never)] = -np.inf
    best = np.argpartition(scores, -count)[-count:] if count < len(scores) else np.arange(len(scores))
    return best[scores[best] > -np.inf]
