"""The case of words, and whether two words have the same letters."""

from __future__ import annotations

import unicodedata
from enum import IntEnum

from shared.params import TextForm

_JOINERS = "'’-"


class Case(IntEnum):
    """The case that a word passes on to its replacement; OWN leaves the replacement unchanged."""

    OWN = 0
    LOWER = 1
    UPPER = 2
    TITLE = 3


def match_case(candidate: str, letters: str) -> str:
    """`candidate` in the case of `letters`, the word as written in the text.

    Title case capitalises the candidate's first letter and keeps its other letters (USA stays USA). The candidate is
    unchanged for words in mixed case (iPhone) or without case, and if it is not a word ([UNK]).
    """
    return in_case(candidate, case_of(letters))


def case_of(letters: str) -> Case:
    """The case that a word's letters pass on to its replacement."""
    if letters.isascii() and letters.islower():
        return Case.LOWER
    cased = [letter for letter in letters if letter.lower() != letter.upper()]
    if not cased:
        return Case.OWN
    first, rest = cased[0], "".join(cased[1:])
    if first == first.lower():
        return Case.LOWER if rest == rest.lower() else Case.OWN
    if rest and rest == rest.upper():
        return Case.UPPER
    return Case.TITLE if rest == rest.lower() else Case.OWN


def in_case(candidate: str, case: Case) -> str:
    """`candidate` converted to a case, if it is a word."""
    if case is Case.OWN or (case is Case.LOWER and candidate.islower() and candidate.isascii()):
        return candidate
    if not all(unicodedata.category(one)[0] in "LMN" or one in _JOINERS for one in candidate):
        return candidate
    if case is Case.LOWER:
        return candidate.lower()
    return candidate.upper() if case is Case.UPPER else candidate[:1].title() + candidate[1:]


def fold(word: str) -> str:
    """A word's key for comparison regardless of case and of the encoding of accents."""
    return word if word.isascii() and word.islower() else unicodedata.normalize("NFC", word).casefold()


def keeps_word(candidate: str, word: str, letters: str, text: TextForm) -> bool:
    """Whether choosing `candidate` leaves a word unchanged; `word` and `letters`: after normalisation, and as written.

    In the original text (`preserve`), the same letters in another case or encoding are the same word.
    """
    return candidate in (word, letters) or (text == "preserve" and fold(candidate) == fold(letters))
