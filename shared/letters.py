"""Words as people write them: the case of a word, and whether two words have the same letters."""

from __future__ import annotations

import unicodedata

from shared.params import TextForm

_JOINERS = "'’-"


def match_case(candidate: str, letters: str) -> str:
    """`candidate` in the case of `letters`, the word as it is written in the text.

    Title case gives the candidate a capital first letter and leaves its other letters alone (USA stays USA). Words in
    mixed case (iPhone), words without case, and candidates that are not words ([UNK]) leave it as it is.
    """
    if letters.isascii() and letters.islower() and candidate.islower():
        return candidate
    cased = [letter for letter in letters if letter.lower() != letter.upper()]
    if not cased or not all(unicodedata.category(one)[0] in "LMN" or one in _JOINERS for one in candidate):
        return candidate
    first, rest = cased[0], "".join(cased[1:])
    if first == first.lower():
        return candidate.lower() if rest == rest.lower() else candidate
    if rest and rest == rest.upper():
        return candidate.upper()
    return candidate[:1].title() + candidate[1:] if rest == rest.lower() else candidate


def fold(word: str) -> str:
    """A word as it is compared regardless of case and of how its accents are encoded."""
    return word if word.isascii() and word.islower() else unicodedata.normalize("NFC", word).casefold()


def keeps_word(candidate: str, word: str, letters: str, text: TextForm) -> bool:
    """Whether choosing `candidate` leaves a word as it is; `word` and `letters`: after normalisation, and as written.

    In the original text (`preserve`), the same letters in another case or encoding are the same word.
    """
    return candidate in (word, letters) or (text == "preserve" and fold(candidate) == fold(letters))
