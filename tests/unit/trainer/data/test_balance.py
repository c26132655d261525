"""Balanced answers: samples repeated and left out until classes have the shares of the rows themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from trainer.data.balance import MOST_REPEATS, answer_counts, answer_shares, balance_weights, balanced_rows

ANSWERS = st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=40)


def logits_of(answers: list[int]) -> NDArray[np.float32]:
    logits = np.zeros((len(answers), 3), np.float32)
    logits[np.arange(len(answers)), answers] = 1.0
    return logits


@given(st.lists(ANSWERS, min_size=1, max_size=4))
def test_shares_are_those_of_all_shards(shards: list[list[tuple[int, bool]]]) -> None:
    statistics = [
        answer_counts(logits_of([answer for answer, _ in one]), np.asarray([is_source for _, is_source in one]))
        for one in shards
    ]
    shares = answer_shares(statistics, 3)
    assert shares is not None
    every = [one for shard in shards for one in shard]
    sources = [answer for answer, is_source in every if is_source]
    for found, answers in zip(shares, (sources, [answer for answer, _ in every]), strict=True):
        assert found.tolist() == pytest.approx([answers.count(number) / max(len(answers), 1) for number in range(3)])


def test_shards_without_counts_have_no_shares() -> None:
    counted = answer_counts(logits_of([0, 1]), np.asarray([True, True]))
    assert answer_shares([counted, {"n_a": 4.0}], 3) is None


def test_rows_are_repeated_until_their_answers_have_the_wanted_shares() -> None:
    answers = [0] * 9000 + [1] * 900 + [2] * 100
    logits = logits_of(answers)
    wanted = np.asarray([0.5, 0.45, 0.05])
    weights = balance_weights(wanted, np.asarray([0.9, 0.09, 0.01]))
    rows = balanced_rows(logits, weights, np.random.default_rng(0))
    assert (np.diff(rows) >= 0).all()
    shares = np.bincount(np.asarray(answers)[rows], minlength=3) / len(rows)
    assert np.abs(shares - wanted).max() < 0.01
    assert abs(len(rows) - len(answers)) < 150
    assert np.array_equal(rows, balanced_rows(logits, weights, np.random.default_rng(0)))
    # A class that the teacher gives to no sample has no weight to bring it back, and none is repeated without end.
    assert balance_weights(np.asarray([0.5, 0.5]), np.asarray([1.0, 0.0])).tolist() == [0.5, MOST_REPEATS]
    assert balance_weights(np.asarray([0.0, 1.0]), np.asarray([0.5, 0.5])).tolist() == [0.0, 2.0]
