"""Estimates of what a request will take."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from augment_service.service.estimates import count_words

WORD = re.compile("[^\\W_\u2e80-\U0010ffff]+|[^\\s]")
"""One match per word: runs of letters and digits below CJK, and every other character except spaces."""


@given(st.one_of(st.text(), st.text("ab_ 1,\u00e9\u3000\u4e2d\x1f\x85\u200b\u0301", max_size=40)))
@example("\ud800 x")
@example("")
def test_words_are_counted_as_a_regular_expression_counts_them(text: str) -> None:
    assert count_words(text) == len(WORD.findall(text))
