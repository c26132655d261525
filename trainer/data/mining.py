"""More text pairs for a pair task: first texts with second texts of other rows that share rare tokens (pure).

A pair task with few rows shows a student few of the ways in which two texts can relate. Its texts form many more pairs,
and those about the same subject are worth a teacher's prediction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shared.seeds import mined_order

Ids = Sequence[Sequence[int]]

_CHUNK_ROWS = 256
"""First texts compared at a time: their similarities to all second texts are in memory together."""


def mine_pairs(
    texts_a: Sequence[str], texts_b: Sequence[str], tokens_a: Ids, tokens_b: Ids, per_text: int
) -> NDArray[np.int64]:
    """(pairs, 2): row of the first text and row of the second, for pairs of texts that no row has.

    Each distinct first text gets up to `per_text` second texts, those most similar to it by the cosine of their tokens,
    each counted once and weighted by its inverse document frequency. tokens_a, tokens_b: token ids of each text.
    Duplicate pairs of texts are listed once; a second text without a common token is never used.
    """
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfTransformer

    if not len(texts_a) or not per_text:
        return np.zeros((0, 2), np.int64)
    sets = [np.unique(np.asarray(one, np.int64)) for one in (*tokens_a, *tokens_b)]
    begin = np.cumsum([0, *map(len, sets)])
    columns = np.concatenate(sets)
    width = int(columns.max(initial=0)) + 1
    counts = csr_matrix((np.ones(len(columns)), columns, begin), shape=(len(sets), width))
    weighted = TfidfTransformer().fit_transform(counts)
    first, second = weighted[: len(texts_a)], weighted[len(texts_a) :].T.tocsr()
    known = set(zip(texts_a, texts_b, strict=True))
    # The first row of each distinct text.
    rows_a, rows_b = (
        sorted({text: row for row, text in reversed(list(enumerate(of)))}.values()) for of in (texts_a, texts_b)
    )
    second = second[:, rows_b]
    found: list[tuple[int, int]] = []
    for start in range(0, len(rows_a), _CHUNK_ROWS):
        chunk = rows_a[start : start + _CHUNK_ROWS]
        for row, similarity in zip(chunk, (first[chunk] @ second).toarray(), strict=True):
            found += _best(row, similarity, rows_b, texts_a, texts_b, known, per_text)
    return np.asarray(found, np.int64).reshape(-1, 2)


def shuffled(count: int, seed: int) -> NDArray[np.int64]:
    """(count,) random order for mined pairs."""
    return mined_order(seed).permutation(count)


def _best(
    row: int,
    similarity: NDArray[np.float64],
    rows_b: Sequence[int],
    texts_a: Sequence[str],
    texts_b: Sequence[str],
    known: set[tuple[str, str]],
    per_text: int,
) -> list[tuple[int, int]]:
    """The new pairs of one first text. similarity: (len(rows_b),) to the distinct second texts."""
    found: list[tuple[int, int]] = []
    for place in np.argsort(-similarity, kind="stable"):
        if similarity[place] <= 0 or len(found) == per_text:
            break
        if (texts_a[row], texts_b[rows_b[place]]) not in known:
            found.append((row, rows_b[place]))
    return found
