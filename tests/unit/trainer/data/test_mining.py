"""Mined pairs: new, similar, each once; against a slow statement of what is chosen."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.mining import mine_pairs

WORDS = ["the", "river", "bank", "money", "loan", "of", "fish", "swim"]
TEXTS = st.lists(st.integers(0, len(WORDS) - 1), max_size=6)
ROWS = st.lists(st.tuples(TEXTS, TEXTS), max_size=12)


def text_of(tokens: list[int]) -> str:
    return " ".join(WORDS[token] for token in tokens)


def mined(rows: list[tuple[list[int], list[int]]], per_text: int) -> list[tuple[int, int]]:
    first, second = [row[0] for row in rows], [row[1] for row in rows]
    found = mine_pairs(list(map(text_of, first)), list(map(text_of, second)), first, second, per_text)
    return [(int(a), int(b)) for a, b in found]


def similarities(rows: list[tuple[list[int], list[int]]]) -> dict[tuple[str, str], float]:
    """Cosine of the sets of tokens, each weighted with 1 + ln((1 + texts) / (1 + texts that have it))."""
    sets = [set(tokens) for side in (0, 1) for tokens in (row[side] for row in rows)]

    def weight(token: int) -> float:
        return 1 + math.log((1 + len(sets)) / (1 + sum(token in one for one in sets)))

    def norm(tokens: set[int]) -> float:
        return math.sqrt(sum(weight(token) ** 2 for token in tokens)) or 1.0

    return {
        (text_of(first), text_of(second)): sum(weight(token) ** 2 for token in set(first) & set(second))
        / (norm(set(first)) * norm(set(second)))
        for first, _ in rows
        for _, second in rows
    }


@settings(max_examples=80, deadline=None)
@given(ROWS, st.integers(0, 4))
def test_each_first_text_gets_its_most_similar_new_second_texts(
    rows: list[tuple[list[int], list[int]]], per_text: int
) -> None:
    pairs = [(text_of(rows[a][0]), text_of(rows[b][1])) for a, b in mined(rows, per_text)]
    assert len(set(pairs)) == len(pairs)
    known = {(text_of(first), text_of(second)) for first, second in rows}
    assert not known & set(pairs)
    wanted = similarities(rows)
    for text in {text_of(first) for first, _ in rows}:
        chosen = [wanted[pair] for pair in pairs if pair[0] == text]
        possible = sorted((wanted[pair] for pair in wanted if pair[0] == text and pair not in known), reverse=True)
        expected = [value for value in possible if value > 0][:per_text]
        assert chosen == pytest.approx(expected)


def test_more_rows_than_a_chunk() -> None:
    first, second = [[number, 1000] for number in range(2, 602)], [[number, 1001] for number in range(2, 602)]
    texts_a, texts_b = [f"{number} a" for number in range(600)], [f"{number} b" for number in range(600)]
    found = mine_pairs(texts_a, texts_b, first, second, 3)
    # Nothing is shared but with the row's own second text, which is not new.
    assert found.shape == (0, 2)
    assert found.dtype == np.int64
    assert mine_pairs(texts_a, texts_b, first, second[1:] + second[:1], 3).tolist() == [
        [number, (number - 1) % 600] for number in range(600)
    ]
