"""Candidate sets of source rows, and the samples drawn from them, as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Origin = Literal["mlm", "glove"]
ORIGINS: tuple[Origin, ...] = ("mlm", "glove")

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Site:
    """A word that may be replaced: code points [start, end) of its text, and its candidates, best first.

    word: the word after the tokenizer's normalisation; choosing a candidate equal to it leaves the text unchanged. In
    the original text (`text = preserve`), so does a candidate with the same letters as the text, ignoring case.
    scores: logits for origin mlm, cosines for glove. A word without candidates is never replaced.
    """

    start: int
    end: int
    word: str
    origin: Origin
    candidates: tuple[str, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class TextCandidates:
    """The text that samples are made from (the original, or its normalised words) and its sites in order."""

    text: str
    sites: tuple[Site, ...]


@dataclass(frozen=True, slots=True)
class RowCandidates:
    """Candidate sets of one source row."""

    source_id: int
    text_a: TextCandidates
    text_b: TextCandidates | None = None

    @property
    def sites(self) -> tuple[Site, ...]:
        """Sites of both texts, text_a's first: a site's index here is its word index."""
        return self.text_a.sites + (self.text_b.sites if self.text_b else ())

    def letters(self, index: int) -> str:
        """The word at site `index` as written in the text."""
        num_a = len(self.text_a.sites)
        text, place = (self.text_a, index) if index < num_a else (self.text_b, index - num_a)
        assert text is not None
        return text.text[text.sites[place].start : text.sites[place].end]

    @property
    def texts(self) -> tuple[str, str | None]:
        """The unmodified text_a and text_b."""
        return self.text_a.text, self.text_b.text if self.text_b else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Samples of a sequence of rows, in columns. Sample s replaces the words `offsets[s]` to `offsets[s + 1]`.

    row, n: (samples,) int64, the row's index in the sequence and 1..N_a, sorted. Per replaced word, int64: `site`
    (index among the row's sites, ascending per sample), `word` (index into `words`), `origin` (index into ORIGINS).
    """

    row: Ints
    n: Ints
    offsets: Ints
    site: Ints
    word: Ints
    origin: Ints
    words: Sequence[str]

    def __len__(self) -> int:
        return len(self.row)

    def first(self, n_a: int | Ints) -> Samples:
        """The samples with n <= `n_a`: one number, or (rows,) int64 with one per row."""
        return self._take(np.flatnonzero(self.n <= (n_a if isinstance(n_a, int) else n_a[self.row])))

    def in_order(self) -> Samples:
        """The samples, stably sorted by row."""
        return self if np.all(np.diff(self.row) >= 0) else self._take(np.argsort(self.row, kind="stable"))

    def _take(self, chosen: Ints) -> Samples:
        lengths = np.diff(self.offsets)[chosen]
        words = ranges(self.offsets[:-1][chosen], lengths)
        return Samples(
            row=self.row[chosen],
            n=self.n[chosen],
            offsets=offsets_of(lengths),
            site=self.site[words],
            word=self.word[words],
            origin=self.origin[words],
            words=self.words,
        )

    def replaced_words(self) -> Iterator[list[tuple[int, str]]]:
        """Per sample, the (site, new word) pairs."""
        sites, words = self.site.tolist(), self.word.tolist()
        for start, end in pairwise(self.offsets.tolist()):
            chosen = zip(sites[start:end], words[start:end], strict=True)
            yield [(site, self.words[word]) for site, word in chosen]


def concatenate(parts: Sequence[Samples], words: Sequence[str]) -> Samples:
    """All samples of `parts`, in order; `words`: the word list shared by all parts."""
    if len(parts) == 1:
        return parts[0]
    empty = np.zeros(0, np.int64)

    def joined(name: str) -> Ints:
        return np.concatenate([empty, *(getattr(part, name) for part in parts)])

    lengths = np.concatenate([empty, *(np.diff(part.offsets) for part in parts)])
    return Samples(
        row=joined("row"),
        n=joined("n"),
        offsets=offsets_of(lengths),
        site=joined("site"),
        word=joined("word"),
        origin=joined("origin"),
        words=words,
    )


def offsets_of(lengths: Ints) -> Ints:
    """Start of each of several consecutive runs, and end of the last: (runs + 1,) int64."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def lengths_of(offsets: Ints) -> Ints:
    """The inverse of `offsets_of`. Faster than `np.diff`, which matters for requests with one row."""
    return offsets[1:] - offsets[:-1]


def ranges(starts: Ints, lengths: Ints) -> Ints:
    """Concatenated `arange(start, start + length)`."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) - np.repeat(ends - lengths, lengths) + np.repeat(starts, lengths)
