"""Texts -> words with code-point spans and token ids; which words may be replaced; which are a single token.

With a BERT tokenizer, its pre-tokens are the words. Other tokenizers (byte-level BPE, Unigram) do not split into words,
so texts are split here in the same way: at white space, punctuation and CJK characters. Tokens are then aligned with
words by their offsets, and a word whose boundary lies inside a token is never replaced.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import Any

from augment_service.engine.vocabulary import uses_byte_level
from shared.letters import fold
from shared.params import Words

_REFERENCE_WORD = re.compile("[a-z]+")
_MARKS = ("Mn", "Mc", "Me", "Cf")
_DIRECTIONS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@dataclass(frozen=True, slots=True)
class Word:
    """A basic token: code points [start, end) of the text, its normalised form, and its token ids.

    The span includes the marks that follow its letters (accents, vowel signs, joiners), even if the normaliser dropped
    them.
    """

    start: int
    end: int
    text: str
    piece_ids: tuple[int, ...]
    is_aligned: bool = True

    @property
    def is_single_piece(self) -> bool:
        """Whether the word is a single entry of the vocabulary."""
        return len(self.piece_ids) == 1 and self.is_aligned


@lru_cache(maxsize=1)
def stop_words() -> frozenset[str]:
    """The 145 alphabetic members of NLTK's English stop list that the reference uses."""
    return frozenset((files("augment_service.engine") / "data" / "stopwords.txt").read_text(encoding="utf-8").split())


def may_replace(word: Word, words: Words, stop: Collection[str] | None = None) -> bool:
    """Whether this word may be replaced under the switch `words`.

    stop: lower-case words that are never replaced; None: the reference's list with `words = reference`, else no words.
    """
    if not word.is_aligned or not word.text:
        return False
    if stop is None:
        stop = stop_words() if words == "reference" else ()
    if word.text in stop or (stop and not word.text.islower() and fold(word.text) in stop):
        return False
    if words == "reference":
        return _REFERENCE_WORD.fullmatch(word.text) is not None
    if words == "all-letters":
        # Marks count as letters: Devanagari and Arabic words contain them.
        return all(unicodedata.category(letter)[0] in "LM" for letter in word.text)
    return not all(_is_punctuation(letter) for letter in word.text)


class WordSplitter:
    """Splits texts with one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._backend = tokenizer.backend_tokenizer
        # Sentence encoders ship tokenizers that pad and truncate every text to a fixed length.
        self._backend.no_padding()
        self._backend.no_truncation()
        # A literal "[MASK]" in a text must not act as a mask; it stays whole only between spaces, as in BERT.
        self._backend.encode_special_tokens = True
        self._special_ids = {token: self._backend.token_to_id(token) for token in tokenizer.all_special_tokens if token}
        literals = "|".join(re.escape(token) for token in sorted(self._special_ids, key=len, reverse=True))
        self._literal = re.compile(rf"(?<!\S)(?:{literals})(?!\S)") if literals else None
        self._has_word_pre_tokens = "BertPreTokenizer" in str(self._backend.pre_tokenizer or "")
        self._needs_space = uses_byte_level(self._backend)

    @cached_property
    def keeps_spaces_apart(self) -> bool:
        """Whether splitting the parts between spaces separately gives the same result as splitting the whole text.

        True for BERT's own steps. Other normalisers and pre-tokenizers, and added tokens that are matched before them,
        may look across a space.
        """
        backend = self._backend
        kinds = (type(backend.normalizer).__name__, type(backend.pre_tokenizer).__name__, type(backend.model).__name__)
        added = backend.get_added_tokens_decoder().values()
        return (
            kinds == ("BertNormalizer", "BertPreTokenizer", "WordPiece")
            and all(token.special for token in added)
            and not any(" " in token for token in self._special_ids)
        )

    def split(self, texts: Sequence[str]) -> list[tuple[Word, ...]]:
        """Words of each text, in order."""
        plain = [text for text in texts if not self._has_literal(text)]
        encoded = iter(self._encode_batch(plain))
        found = [self._split_around_literals(text) if self._has_literal(text) else next(encoded) for text in texts]
        return [_with_marks(text, words) for text, words in zip(texts, found, strict=True)]

    def pieces_of(self, word: str) -> tuple[int, ...]:
        """Token ids of a word surrounded by spaces."""
        text = " " + word if self._needs_space else word
        return tuple(self._backend.encode(text, add_special_tokens=False).ids)

    def _has_literal(self, text: str) -> bool:
        return self._literal is not None and self._literal.search(text) is not None

    def _split_around_literals(self, text: str) -> tuple[Word, ...]:
        words: list[Word] = []
        last = 0
        assert self._literal is not None
        for match in [*self._literal.finditer(text), None]:
            start = match.start() if match else len(text)
            words += [_moved(word, last) for word in self._encode_batch([text[last:start]])[0]]
            if match:
                words.append(Word(match.start(), match.end(), match.group(), (self._special_ids[match.group()],)))
                last = match.end()
        return tuple(words)

    def _encode_batch(self, texts: Sequence[str]) -> list[tuple[Word, ...]]:
        if self._has_word_pre_tokens:
            encodings = self._backend.encode_batch(list(texts), add_special_tokens=False)
            return [self._words_of_pre_tokens(text, one) for text, one in zip(texts, encodings, strict=True)]
        shift = 1 if self._needs_space else 0
        encodings = self._backend.encode_batch([" " * shift + text for text in texts], add_special_tokens=False)
        return [_words_by_offsets(text, one, shift) for text, one in zip(texts, encodings, strict=True)]

    def _words_of_pre_tokens(self, text: str, encoding: Any) -> tuple[Word, ...]:
        spans: list[list[Any]] = []
        last = None
        for piece, word, (start, end) in zip(encoding.ids, encoding.word_ids, encoding.offsets, strict=True):
            if word == last:
                spans[-1][1] = end
                spans[-1][2].append(piece)
            else:
                spans.append([start, end, [piece]])
                last = word
        return tuple(Word(start, end, self._normalised(text[start:end]), tuple(pieces)) for start, end, pieces in spans)

    def _normalised(self, word: str) -> str:
        if self._backend.normalizer is None:
            return word
        return _normalise_once(self._backend.normalizer, word)


def _normalise_once(normalizer: Any, word: str) -> str:
    if word.isascii() and word.isalpha() and word.islower():
        return word
    return str(normalizer.normalize_str(word)).strip()


def _with_marks(text: str, words: tuple[Word, ...]) -> tuple[Word, ...]:
    """The words, each extended by the marks after its letters that belong to no other word."""
    if text.isascii():
        return words
    found: list[Word] = []
    for index, word in enumerate(words):
        end, limit = word.end, words[index + 1].start if index + 1 < len(words) else len(text)
        while end < limit and _is_mark(text[end]):
            end += 1
        found.append(word if end == word.end else replace(word, end=end))
    return tuple(found)


def _is_mark(letter: str) -> bool:
    """Whether a code point belongs to the letter before it: marks, joiners and other invisible format characters.

    Bidirectional controls, which come in pairs, belong to the text instead.
    """
    return letter > "\x7f" and unicodedata.category(letter) in _MARKS and letter not in _DIRECTIONS


def _moved(word: Word, by: int) -> Word:
    return Word(word.start + by, word.end + by, word.text, word.piece_ids, word.is_aligned)


def _words_by_offsets(text: str, encoding: Any, shift: int) -> tuple[Word, ...]:
    """Basic words of `text`, each with the tokens inside it."""
    spans = basic_spans(text)
    pieces: list[list[int]] = [[] for _ in spans]
    aligned = [True] * len(spans)
    place = 0
    for piece, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
        start, end = max(start - shift, 0), end - shift
        while start < end and text[start].isspace():
            start += 1
        # A whitespace-only token (SentencePiece emits one before some words) belongs to the word after it.
        while place < len(spans) and spans[place][1] <= start:
            place += 1
        if place == len(spans):
            continue
        pieces[place].append(piece)
        for crossed in range(place, len(spans)):
            if spans[crossed][0] >= end:
                break
            if start < spans[crossed][0] or end > spans[crossed][1]:
                aligned[crossed] = False
    return tuple(
        Word(start, end, text[start:end], tuple(pieces[i]), aligned[i] and bool(pieces[i]))
        for i, (start, end) in enumerate(spans)
    )


def basic_spans(text: str) -> list[tuple[int, int]]:
    """Spans of basic tokens: split at white space, around punctuation and around CJK characters."""
    spans: list[tuple[int, int]] = []
    start = None
    for place, letter in enumerate(text):
        alone = _is_punctuation(letter) or _is_cjk(letter)
        if letter.isspace() or alone:
            if start is not None:
                spans.append((start, place))
                start = None
            if alone:
                spans.append((place, place + 1))
        elif start is None:
            start = place
    if start is not None:
        spans.append((start, len(text)))
    return spans


def _is_punctuation(letter: str) -> bool:
    code = ord(letter)
    if 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126:
        return True
    return unicodedata.category(letter).startswith("P")


_CJK = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)
"""Ranges of Chinese characters, as in BERT's tokenizer."""


def _is_cjk(letter: str) -> bool:
    code = ord(letter)
    return code >= 0x3400 and any(low <= code <= high for low, high in _CJK)
