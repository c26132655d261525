"""The case of words, and when a candidate is the word itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.letters import keeps_word, match_case


@pytest.mark.parametrize(
    ("letters", "candidate", "expected"),
    [
        ("Offers", "provides", "Provides"),
        ("OFFERS", "provides", "PROVIDES"),
        ("offers", "Provides", "provides"),
        ("iPhone", "phone", "phone"),
        ("McDonald", "smith", "smith"),
        # One capital letter is title case, and a candidate's own capitals stay.
        ("I", "we", "We"),
        ("France", "USA", "USA"),
        ("Élan", "é", "É"),
        ("E\u0301lan", "verve", "Verve"),
        ("STRASSE", "straße", "STRASSE"),
        ("Straße", "ßa", "Ssa"),
        # Words without case, numbers, and candidates that are not words.
        ("电影", "Film", "Film"),
        ("1990s", "2000S", "2000s"),
        ("Offers", "[unk]", "[unk]"),
        ("offers", "[UNK]", "[UNK]"),
        ("Offers", "3d", "3d"),
    ],
)
def test_a_candidate_takes_the_case_of_the_word(letters: str, candidate: str, expected: str) -> None:
    assert match_case(candidate, letters) == expected


@given(st.text("abcxyzéßñ", min_size=2, max_size=8), st.text("abcxyzéñ", min_size=2, max_size=8))
def test_every_plain_case_is_taken(letters: str, candidate: str) -> None:
    assert match_case(candidate, letters).islower()
    assert match_case(candidate, letters.upper()).isupper()
    assert match_case(candidate, letters.capitalize()).istitle()


@given(st.text(max_size=6), st.text(max_size=6))
def test_only_case_changes(letters: str, candidate: str) -> None:
    assert match_case(candidate, letters).upper().casefold() == candidate.upper().casefold() or not candidate.isascii()


def test_the_same_letters_keep_the_word() -> None:
    assert keeps_word("citroën", "citroen", "citroën", "preserve")
    assert keeps_word("Citroën", "citroen", "citroe\u0308n", "preserve")
    assert not keeps_word("Film", "film", "film", "reference")
    assert not keeps_word("citron", "citroen", "citroën", "preserve")
