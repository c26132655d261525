"""Neighbours by cosine: the shortlist, and its memory."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from augment_service.engine.glove import largest

PEAK = """
import resource, numpy as np
from augment_service.engine.glove import GloveVectors
vectors = GloveVectors.load("embedded")
words = vectors.words[1000:200000:700]
vectors.nearest(words[:2], 15)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
vectors.nearest(words, 15)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@settings(max_examples=60)
@given(
    num_rows=st.integers(1, 4),
    num_vectors=st.one_of(st.integers(1, 80), st.integers(900, 6_000)),
    count=st.integers(1, 200),
    left_out=st.floats(0, 1),
    sorted_by_score=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_largest_scores_of_a_row_are_found(
    num_rows: int, num_vectors: int, count: int, left_out: float, sorted_by_score: bool, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    scores = np.stack([generator.permutation(num_vectors) for _ in range(num_rows)]).astype(np.float32)
    if sorted_by_score:
        # The sample of every 64th score is then as unlike a random one as it gets.
        scores.sort(axis=1)
    scores[:, generator.random(num_vectors) < left_out] = -np.inf
    wanted = np.sort(np.sort(scores, axis=1)[:, ::-1][:, :count], axis=1)
    found = largest(scores, count)
    assert [len(set(row.tolist())) for row in found] == [min(count, num_vectors)] * num_rows
    np.testing.assert_array_equal(np.stack([np.sort(row[ids]) for row, ids in zip(scores, found, strict=True)]), wanted)


def test_equal_scores_are_no_trouble() -> None:
    found = largest(np.zeros((2, 5_000), np.float32), 47)
    assert [len(set(row.tolist())) for row in found] == [47, 47]


def test_hundreds_of_words_take_less_than_100_mb() -> None:
    """285 words at once took 1.5 GB when a whole score matrix was partitioned."""
    finished = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert int(finished.stdout) < 100
