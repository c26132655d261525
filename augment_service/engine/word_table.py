"""Texts -> words in columns, through a table of all distinct words seen so far.

Words of a shard repeat, so the properties of a word (its tokens, whether it may be replaced, its case) are computed
once and then gathered as arrays. With a plain BERT tokenizer no word spans a space, so texts are split at spaces and
each distinct part is tokenized once; other tokenizers get whole texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augment_service.engine.batches import Ints, offsets, ranges
from augment_service.engine.protection import Replaceable, is_part_of_letter
from augment_service.engine.words import Word, WordSplitter
from shared.letters import case_of
from shared.strings import Strings

_MAX_CHARACTERS, _MAX_STRINGS = 20_000_000, 500_000
"""A table larger than this is replaced by an empty one, which bounds the memory of a process that runs for days."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WordColumns:
    """Words of several texts; text t has the words `first[t]` to `first[t + 1]`.

    kind: (words,) index of the table's distinct words. start, end: code points of the text. is_part: whether the word
    begins or ends inside a letter. may_be_protected: (texts,) whether something in the text may protect words.
    """

    texts: Sequence[str]
    first: Ints
    kind: Ints
    start: Ints
    end: Ints
    is_part: NDArray[np.bool_]
    may_be_protected: NDArray[np.bool_]


class _Column:
    """A growable array."""

    def __init__(self, dtype: Any) -> None:
        self._data, self._size = np.zeros(1024, dtype), 0

    def __len__(self) -> int:
        return self._size

    def extend(self, values: Sequence[Any] | NDArray[Any]) -> None:
        size = self._size + len(values)
        if size > len(self._data):
            self._data = np.concatenate([self._data[: self._size], np.zeros(size, self._data.dtype)])
        self._data[self._size : size] = values
        self._size = size

    @property
    def values(self) -> NDArray[Any]:
        return self._data[: self._size]


class WordTable:
    """Distinct words of one tokenizer, and which of them `replaceable` allows. Not thread-safe.

    words: the distinct words, with meaningless spans. strings: their texts, among others. Per word, as arrays: `text`
    and `letters` (numbers of `strings`), `case`, `is_single`, `may_replace`, `first_token` and `num_tokens` (of
    `tokens`).
    """

    def __init__(self, splitter: WordSplitter, replaceable: Replaceable) -> None:
        self._splitter, self._replaceable = splitter, replaceable
        self._cuts = splitter.keeps_spaces_apart
        self.strings = Strings()
        self.words: list[Word] = []
        self._number: dict[tuple[str, str, tuple[int, ...], bool], int] = {}
        integers = ("text", "letters", "case", "first_token", "num_tokens")
        self._columns = {name: _Column(np.int64) for name in integers}
        self._columns |= {name: _Column(np.bool_) for name in ("is_single", "may_replace", "begins_phrase")}
        self._tokens = _Column(np.int32)
        self._part_number: dict[str, int] = {}
        self._characters = 0
        self._part_length, self._part_first = _Column(np.int64), _Column(np.int64)
        self._part_num_words, self._part_is_protecting = _Column(np.int64), _Column(np.bool_)
        self._kind, self._start, self._end = _Column(np.int64), _Column(np.int64), _Column(np.int64)
        self._is_part_at_start, self._is_part_within = _Column(np.bool_), _Column(np.bool_)

    @property
    def is_full(self) -> bool:
        """Whether the table should be replaced by a new one."""
        return self._characters > _MAX_CHARACTERS or len(self.strings) > _MAX_STRINGS

    @property
    def tokens(self) -> NDArray[np.int32]:
        """Concatenated token ids of all distinct words."""
        return self._tokens.values

    def __getitem__(self, name: str) -> NDArray[Any]:
        """A column of the distinct words."""
        return self._columns[name].values

    def split(self, texts: Sequence[str]) -> WordColumns:
        """Words of each text, in order, as `WordSplitter.split` finds them."""
        parts = [text.split(" ") for text in texts] if self._cuts else [[text] for text in texts]
        flat = list(chain.from_iterable(parts))
        new = [part for part in dict.fromkeys(flat) if part not in self._part_number]
        if new:
            self._add_parts(new)
        number = np.asarray(list(map(self._part_number.__getitem__, flat)), np.int64)
        first_part = offsets(list(map(len, parts)))
        num_words = self._part_num_words.values[number]
        place = ranges(self._part_first.values[number], num_words)
        # Each part plus the space after it.
        begin = offsets(self._part_length.values[number] + 1)
        begin_in_text = begin[:-1] - np.repeat(begin[first_part[:-1]], np.diff(first_part))
        shift = np.repeat(begin_in_text, num_words)
        kind, first = self._kind.values[place], offsets(num_words)[first_part]
        is_part = np.where(shift == 0, self._is_part_at_start.values[place], self._is_part_within.values[place])
        protecting = np.flatnonzero(self._part_is_protecting.values[number])
        phrases = np.flatnonzero(self["begins_phrase"][kind])
        may_be_protected = np.zeros(len(texts), np.bool_)
        may_be_protected[np.searchsorted(first_part, protecting, side="right") - 1] = True
        may_be_protected[np.searchsorted(first, phrases, side="right") - 1] = True
        return WordColumns(
            texts=texts,
            first=first,
            kind=kind,
            start=self._start.values[place] + shift,
            end=self._end.values[place] + shift,
            is_part=is_part,
            may_be_protected=may_be_protected,
        )

    def words_of(self, columns: WordColumns, text: int) -> list[Word]:
        """The words of one text, as `WordSplitter.split` returns them."""
        own = slice(int(columns.first[text]), int(columns.first[text + 1]))
        spans = zip(columns.kind[own].tolist(), columns.start[own].tolist(), columns.end[own].tolist(), strict=True)
        known = ((self.words[kind], start, end) for kind, start, end in spans)
        return [Word(start, end, word.text, word.piece_ids, word.is_aligned) for word, start, end in known]

    def _add_parts(self, parts: Sequence[str]) -> None:
        found = self._splitter.split(parts)
        self._part_number |= {part: len(self._part_number) + place for place, part in enumerate(parts)}
        self._characters += sum(map(len, parts))
        counts = list(map(len, found))
        self._part_first.extend(len(self._kind) + offsets(counts)[:-1])
        self._part_num_words.extend(counts)
        self._part_length.extend(list(map(len, parts)))
        self._part_is_protecting.extend(list(map(self._replaceable.may_protect, parts)))
        self._kind.extend(self._kinds(parts, found))
        self._start.extend([word.start for words in found for word in words])
        self._end.extend([word.end for words in found for word in words])
        at_start: list[bool] = []
        within: list[bool] = []
        for part, words in zip(parts, found, strict=True):
            if part.isascii():
                at_start += [False] * len(words)
                within += [False] * len(words)
                continue
            inside = [Word(one.start + 1, one.end + 1, one.text, one.piece_ids) for one in words]
            at_start += [is_part_of_letter(part, words, index) for index in range(len(words))]
            within += [is_part_of_letter(" " + part, inside, index) for index in range(len(words))]
        self._is_part_at_start.extend(at_start)
        self._is_part_within.extend(within)

    def _kinds(self, parts: Sequence[str], found: Sequence[Sequence[Word]]) -> list[int]:
        """The number of each word; new words are added to the table."""
        kinds: list[int] = []
        first = len(self.words)
        letters_of: list[str] = []
        for part, words in zip(parts, found, strict=True):
            for word in words:
                letters = part[word.start : word.end]
                key = (letters, word.text, word.piece_ids, word.is_aligned)
                number = self._number.setdefault(key, len(self.words))
                if number == len(self.words):
                    self.words.append(word)
                    letters_of.append(letters)
                kinds.append(number)
        added = self.words[first:]
        counts = [len(word.piece_ids) for word in added]
        columns: dict[str, Sequence[Any] | Ints] = {
            "text": self.strings.numbers(word.text for word in added),
            "letters": self.strings.numbers(letters_of),
            "case": list(map(case_of, letters_of)),
            "is_single": [word.is_single_piece for word in added],
            "may_replace": list(map(self._replaceable.may_replace, added)),
            "begins_phrase": list(map(self._replaceable.may_begin_phrase, added)),
            "first_token": len(self._tokens) + offsets(counts)[:-1],
            "num_tokens": counts,
        }
        for name, values in columns.items():
            self._columns[name].extend(values)
        self._tokens.extend([token for word in added for token in word.piece_ids])
        return kinds
