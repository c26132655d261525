"""Which words of a text may be replaced: the switch `words`, the stop list, and protected spans, words and phrases.

Spans (URLs, e-mail addresses, HTML, mentions, numbers, custom expressions) are matched in the original text; a word
that overlaps one is not replaced. Protected words and phrases are matched as tokens of the same tokenizer, ignoring
case, so that `C++` and `New York` match too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np

from augment_service.engine.words import Word, WordSplitter, may_replace, stop_words
from shared.letters import fold
from shared.params import REFERENCE_STOP_WORDS, STOP_WORDS_OF_MODE, AugmentParams

_DOMAINS = "com|org|net|edu|gov|mil|info|io|ai|app|dev|co|me|tv|uk|de|fr|es|it|nl|eu|ch|at|jp|cn|in|br|ru|ca|au|us"

# Every repetition is bounded or anchored at the start of a run, so matching is linear in the length of the text.
_KINDS = {
    "urls": (
        r"(?:\b(?:https?|ftp)://|\bwww\.)[^\s<>\"]+"
        rf"|(?<![\w.@-])(?:[a-z0-9-]{{1,63}}\.){{1,8}}(?:{_DOMAINS})\b(?![.]?[\w@-])(?:[:/?#][^\s<>\"]*)?"
    ),
    "emails": r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}",
    "html": r"</?[a-z][\w:-]{0,63}(?:\s[^<>]{0,2000})?/?>|<!(?:--.{0,2000}?--|[^<>]{0,2000})>"
    r"|&(?:[a-z]{1,31}\d{0,2}|\#\d{1,7}|\#x[0-9a-f]{1,6});",
    "mentions": r"(?<![\w@#])[@#]\w+",
    "numbers": r"(?<![\w.,])[+-]?\w*\d(?:[\w.,:/%-]*\w)?%?",
}

_SIGNS: dict[str, Callable[[str], bool]] = {
    "urls": lambda part: "." in part[:-1] or "://" in part,
    "emails": lambda part: "@" in part,
    "html": lambda part: "<" in part or "&" in part,
    "mentions": lambda part: "@" in part or "#" in part,
    "numbers": lambda part: any(map(str.isdecimal, part)),
}
"""Per kind, a sign that a part of a text must contain for the kind's expression to match there."""


def _stop_list(params: AugmentParams) -> tuple[frozenset[str], tuple[str, ...]]:
    """The reference's stop words if they apply, and the user's own stop words."""
    if params.stop_words == STOP_WORDS_OF_MODE:
        return (stop_words() if params.words == "reference" else frozenset()), ()
    return (stop_words(), ()) if params.stop_words == REFERENCE_STOP_WORDS else (frozenset(), params.stop_words)


@lru_cache(maxsize=64)
def _expressions(protect: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    kinds = [re.compile(_KINDS[one], re.IGNORECASE | re.DOTALL) for one in protect if one in _KINDS]
    return (*kinds, *(re.compile(one) for one in protect if one not in _KINDS))


class Replaceable:
    """Decides which words of a text may be replaced. Pure: depends only on the text and the parameters."""

    def __init__(self, params: AugmentParams, splitter: WordSplitter) -> None:
        self._words, self._is_preserved = params.words, params.text == "preserve"
        self._expressions = _expressions(params.protect)
        self._signs = [_SIGNS[one] for one in params.protect if one in _SIGNS]
        self._has_own_expressions = len(self._signs) < len(params.protect)
        self._stop, own_stop_words = _stop_list(params)
        # Protected words are tokenized like texts: the tokenizer may drop accents or split a word (don't, C++).
        self._phrases: dict[str, list[tuple[str, ...]]] = {}
        entries = [*params.protect_words, *own_stop_words]
        for words in splitter.split(entries) if entries else ():
            if words:
                phrase = tuple(fold(word.text) for word in words)
                self._phrases.setdefault(phrase[0], []).append(phrase)

    def __call__(self, text: str, words: Sequence[Word], protects: bool = True) -> list[int]:
        """Indices of the words that may be replaced, ascending.

        protects: exclude words protected by `protect`, `protect_words` and the user's own stop words.
        """
        found = [index for index, word in enumerate(words) if self.may_replace(word)]
        if self._is_preserved:
            found = [index for index in found if not is_part_of_letter(text, words, index)]
        if not protects or not found:
            return found
        protected = set(self.protected(text, words))
        return [index for index in found if index not in protected] if protected else found

    def may_replace(self, word: Word) -> bool:
        """Whether a word may be replaced if nothing protects it."""
        return may_replace(word, self._words, self._stop)

    def may_protect(self, part: str) -> bool:
        """Whether a part of a text (between spaces, or all of it) may contain a protected span.

        A fast pre-filter without false negatives: every match of an expression contains its sign in some part.
        """
        return self._has_own_expressions or any(sign(part) for sign in self._signs)

    def may_begin_phrase(self, word: Word) -> bool:
        """Whether any protected word or phrase begins with this word."""
        return bool(self._phrases) and fold(word.text) in self._phrases

    def protected(self, text: str, words: Sequence[Word]) -> Iterator[int]:
        """Indices of the protected words."""
        spans = [match.span() for one in self._expressions for match in one.finditer(text)]
        if spans:
            ends = np.maximum.accumulate([word.end for word in words])
            for start, end in spans:
                index = int(np.searchsorted(ends, start, side="right"))
                while start < end and index < len(words) and words[index].start < end:
                    yield index
                    index += 1
        if self._phrases:
            folded = [fold(word.text) for word in words]
            for index, first in enumerate(folded):
                for phrase in self._phrases.get(first, ()):
                    if tuple(folded[index : index + len(phrase)]) == phrase:
                        yield from range(index, index + len(phrase))


def is_part_of_letter(text: str, words: Sequence[Word], index: int) -> bool:
    """Whether a word begins or ends inside a letter: some tokenizers split off a combining mark as a word."""
    word = words[index]
    if word.start and _continues_letter(text[word.start]):
        return not text[word.start - 1].isspace()
    return word.end < len(text) and _continues_letter(text[word.end])


def _continues_letter(letter: str) -> bool:
    """Whether a code point (mark, joiner or tag) never begins a letter."""
    if letter <= "\x7f":
        return False
    is_joiner = letter in "\u200c\u200d" or "\U000e0020" <= letter <= "\U000e007f"
    return is_joiner or unicodedata.category(letter)[0] == "M"
