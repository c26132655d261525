"""Estimates of what a request will take."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from augment_service.service.estimates import count_words

WORD = re.compile("[^\\W_\u2e80-\U0010ffff]+|[^\\s]")
"""One match per word: runs of letters and digits below CJK, and every other character except spaces."""


ANY_TEXT = st.one_of(st.text(), st.text("ab_ 1,\u00e9\u3000\u4e2d\x1f\x85\u200b\u0301", max_size=40))


@given(st.lists(ANY_TEXT, min_size=1, max_size=4))
@example(["\ud800 x", "a"])
@example(["", "ab", "", "c d"])
@example(["", "\u00e9b", ""])
def test_words_are_counted_as_a_regular_expression_counts_them(texts: list[str]) -> None:
    """Alone, and next to texts that are long enough to be counted with numpy, of ASCII and of other characters."""
    wanted = [len(WORD.findall(text)) for text in texts]
    assert count_words(texts).tolist() == wanted
    assert count_words([*texts, "a " * 300]).tolist() == [*wanted, 300]
    assert count_words(["\u00e9 " * 300, *texts]).tolist() == [300, *wanted]
