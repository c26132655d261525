"""Neighbours by cosine: the shortlist, and its memory."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augment_service.engine.glove import _SAMPLE_STEP, shortlists

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
    num_queries=st.integers(1, 4),
    num_vectors=st.one_of(st.integers(1, 80), st.integers(900, 6_000)),
    count=st.integers(1, 200),
    left_out=st.floats(0, 1),
    sorted_by_score=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_vectors_with_the_largest_products_are_found(
    num_queries: int, num_vectors: int, count: int, left_out: float, sorted_by_score: bool, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    # Small whole numbers: all products are exact, whatever the order of the sums, and many of them are equal.
    vectors = generator.integers(-9, 10, (num_vectors, 5)).astype(np.float32)
    queries = generator.integers(-9, 10, (num_queries, 5)).astype(np.float32)
    if sorted_by_score:
        # The sample of every 64th vector is then as unlike a random one as it gets.
        vectors = vectors[np.argsort(vectors @ queries[0], kind="stable")]
    is_left_out = generator.random(num_vectors) < left_out
    scores = queries @ vectors.T
    found = shortlists(queries, vectors, vectors[::_SAMPLE_STEP], np.flatnonzero(is_left_out).tolist(), count)
    expected = min(count, int((~is_left_out).sum()))
    for row, ids in zip(scores, found, strict=True):
        assert len(set(ids.tolist())) == len(ids) == expected
        assert not is_left_out[ids].any()
        wanted = np.sort(row[~is_left_out])[::-1][:expected]
        np.testing.assert_array_equal(np.sort(row[ids])[::-1], wanted)


@pytest.mark.parametrize("value", [0, 1])
def test_equal_vectors_are_no_trouble(value: int) -> None:
    vectors = np.full((20_000, 3), value, np.float32)
    found = shortlists(vectors[:2], vectors, vectors[::_SAMPLE_STEP], [], 47)
    assert [len(set(ids.tolist())) for ids in found] == [47, 47]


def test_hundreds_of_words_take_less_than_100_mb() -> None:
    """285 words at once took 1.5 GB when a whole score matrix was partitioned."""
    finished = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert int(finished.stdout) < 100
