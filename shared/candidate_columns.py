"""Candidate sets of a whole shard as columns, without a Python object per word.

Behaves as a sequence of RowCandidates, which are created on access. Draws, texts and Arrow tables of a shard read the
columns instead; tests compare the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np
from numpy.typing import NDArray

from shared.candidates import ORIGINS, Ints, RowCandidates, Site, TextCandidates
from shared.strings import Strings


@dataclass(frozen=True, kw_only=True)
class CandidateColumns(Sequence[RowCandidates]):
    """Candidate sets of rows; all integers are int64.

    source_id: (rows,). texts: each row's text_a and, if it has one, text_b, in order; row r has the texts
    `first_text[r]` to `first_text[r + 1]`, and text t the sites `first_site[t]` to `first_site[t + 1]`. Per site:
    `start`, `end` (code points), `word` and `letters` (numbers of `strings`: the normalised word, and as the text has
    it), `origin` (index into ORIGINS); site s has the candidates `first_candidate[s]` to `first_candidate[s + 1]`. Per
    candidate: `candidate` (number of `strings`) and `score` (float64).
    """

    source_id: Ints
    texts: Sequence[str]
    first_text: Ints
    first_site: Ints
    start: Ints
    end: Ints
    word: Ints
    letters: Ints
    origin: Ints
    first_candidate: Ints
    candidate: Ints
    score: NDArray[np.float64]
    strings: Strings

    def __len__(self) -> int:
        return len(self.source_id)

    @overload
    def __getitem__(self, index: int) -> RowCandidates: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[RowCandidates]: ...
    def __getitem__(self, index: int | slice) -> RowCandidates | Sequence[RowCandidates]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        first, last = int(self.first_text[row]), int(self.first_text[row + 1])
        text_b = self._text(first + 1) if last - first > 1 else None
        return RowCandidates(int(self.source_id[row]), self._text(first), text_b)

    @cached_property
    def has_b(self) -> NDArray[np.bool_]:
        """(rows,) whether the row has a text_b."""
        found: NDArray[np.bool_] = np.diff(self.first_text) > 1
        return found

    @cached_property
    def row_first_site(self) -> Ints:
        """(rows + 1,) first site of each row."""
        return self.first_site[self.first_text]

    @cached_property
    def num_sites_a(self) -> Ints:
        """(rows,) number of sites in text_a."""
        first = self.first_text[:-1]
        return self.first_site[first + 1] - self.first_site[first]

    @cached_property
    def text_of_site(self) -> Ints:
        """(sites,) index of each site's text."""
        return np.repeat(np.arange(len(self.texts)), np.diff(self.first_site))

    def _text(self, text: int) -> TextCandidates:
        return TextCandidates(self.texts[text], tuple(map(self._site, range(*self.first_site[text : text + 2]))))

    def _site(self, site: int) -> Site:
        own = slice(int(self.first_candidate[site]), int(self.first_candidate[site + 1]))
        values = self.strings.values
        return Site(
            int(self.start[site]),
            int(self.end[site]),
            values[self.word[site]],
            ORIGINS[self.origin[site]],
            tuple([values[number] for number in self.candidate[own].tolist()]),
            tuple(self.score[own].tolist()),
        )
