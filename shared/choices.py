"""Choices: for each word of a row, which candidate replaces it, as columns over many rows.

Algorithm 1 makes choices at random (`shared.sampling`); `shared.listing` enumerates the remaining ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from shared.candidate_columns import CandidateColumns
from shared.candidates import ORIGINS, Ints, RowCandidates, Site, offsets_of
from shared.letters import fold, keeps_word
from shared.params import TextForm

KEPT = -1
"""Choice for a word that is not replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceTable:
    """Candidate sets of many rows, flattened; all integers are int64.

    Row r has the sites `first_site[r]` to `first_site[r + 1]`. Per site: `site_index` (its word index in the row),
    `site_column` (0 for text_a, 1 for text_b), `origin` (index into ORIGINS), `num_candidates`, and `candidate_start`
    (index of its first candidate in `choice`). Per candidate: `choice`, its index in `words`, or KEPT if it leaves
    the site's word as it is. `is_ambiguous` (rows,): whether different choices might give the same text.
    """

    source_id: Ints
    first_site: Ints
    site_index: Ints
    site_column: Ints
    num_candidates: Ints
    candidate_start: Ints
    choice: Ints
    origin: Ints
    words: Sequence[str]
    is_ambiguous: NDArray[np.bool_]

    @classmethod
    def of(cls, rows: Sequence[RowCandidates], text_form: TextForm) -> ChoiceTable:
        """The candidate sets of `rows`, in order."""
        return _of_columns(rows, text_form) if isinstance(rows, CandidateColumns) else cls._of_rows(rows, text_form)

    @classmethod
    def _of_rows(cls, rows: Sequence[RowCandidates], text_form: TextForm) -> ChoiceTable:
        words: list[str] = []
        choice: list[int] = []
        first_site, ambiguous = [0], list[bool]()
        site_index, column, counts, origins = list[int](), list[int](), list[int](), list[int]()
        for row in rows:
            is_ambiguous = False
            for number, text in enumerate((row.text_a, row.text_b)):
                for place, site in enumerate(text.sites if text else ()):
                    assert text is not None
                    site_index.append(len(site_index) - first_site[-1])
                    column.append(number)
                    origins.append(ORIGINS.index(site.origin))
                    counts.append(len(site.candidates))
                    letters = text.text[site.start : site.end]
                    choice += _site_choices(site, letters, text_form, words)
                    if place + 1 < len(text.sites):
                        # If a new word contains the separator after it, its end is ambiguous.
                        following = text.text[site.end : site.end + (site.end < text.sites[place + 1].start)]
                        is_ambiguous |= following in letters or any(following in one for one in site.candidates)
            first_site.append(len(site_index))
            ambiguous.append(is_ambiguous)
        num_candidates = np.asarray(counts, np.int64)
        return cls(
            source_id=np.asarray([row.source_id for row in rows], np.int64),
            first_site=np.asarray(first_site, np.int64),
            site_index=np.asarray(site_index, np.int64),
            site_column=np.asarray(column, np.int64),
            num_candidates=num_candidates,
            candidate_start=offsets_of(num_candidates)[:-1],
            choice=np.asarray(choice, np.int64),
            origin=np.asarray(origins, np.int64),
            words=words,
            is_ambiguous=np.asarray(ambiguous, np.bool_),
        )


def _of_columns(columns: CandidateColumns, text_form: TextForm) -> ChoiceTable:
    """As `ChoiceTable._of_rows`, vectorised over all candidates."""
    row_of_text = np.repeat(np.arange(len(columns)), np.diff(columns.first_text))
    row_of_site = row_of_text[columns.text_of_site]
    first_site = columns.row_first_site
    site_index = np.arange(len(columns.start)) - first_site[row_of_site]
    return ChoiceTable(
        source_id=columns.source_id,
        first_site=first_site,
        site_index=site_index,
        site_column=(site_index >= columns.num_sites_a[row_of_site]).astype(np.int64),
        num_candidates=np.diff(columns.first_candidate),
        candidate_start=columns.first_candidate[:-1],
        choice=np.where(_keeps_word(columns, text_form), KEPT, columns.candidate),
        origin=columns.origin,
        words=columns.strings.values,
        is_ambiguous=np.bincount(row_of_site, _touches_next(columns), minlength=len(columns)) > 0,
    )


def _keeps_word(columns: CandidateColumns, text_form: TextForm) -> NDArray[np.bool_]:
    """Whether choosing each candidate leaves its word unchanged: `keeps_word`, vectorised."""
    counts = np.diff(columns.first_candidate)
    candidate, letters = columns.candidate, np.repeat(columns.letters, counts)
    kept: NDArray[np.bool_] = (candidate == np.repeat(columns.word, counts)) | (candidate == letters)
    if text_form == "preserve":
        strings = columns.strings
        folded = np.repeat(strings.map(fold, fold, columns.letters), counts)
        kept |= (candidate == folded) | (strings.map(fold, fold, candidate) == folded)
    return kept


def _touches_next(columns: CandidateColumns) -> NDArray[np.bool_]:
    """Whether each site, or any of its candidates, contains the separator from the next site of its text."""
    site = np.flatnonzero(columns.text_of_site[:-1] == columns.text_of_site[1:])
    is_apart = columns.end[site] < columns.start[site + 1]
    found = np.zeros(len(columns.start), np.bool_)
    found[site[~is_apart]] = True
    site = site[is_apart]
    places = zip(columns.text_of_site[site].tolist(), columns.end[site].tolist(), strict=True)
    following = np.asarray([columns.texts[text][end] for text, end in places], object)
    site_of_candidate = np.repeat(np.arange(len(columns.start)), np.diff(columns.first_candidate))
    for letter in dict.fromkeys(following.tolist()):
        own = np.zeros(len(columns.start), np.bool_)
        own[site[following == letter]] = True
        place = np.flatnonzero(own[site_of_candidate])
        key, contains = ("contains", letter), partial(_contains, letter)
        found |= own & columns.strings.test(key, contains, columns.letters)
        found[site_of_candidate[place][columns.strings.test(key, contains, columns.candidate[place])]] = True
    return found


def _contains(letter: str, value: str) -> bool:
    return letter in value


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """Samples as choices. Per sample, int64: `row`, `n` and `lengths`, the number of sites of its row.

    choice: (sum of lengths,) int64, the choice at every site, concatenated over samples.
    """

    row: Ints
    n: Ints
    lengths: Ints
    choice: Ints

    @classmethod
    def concatenate(cls, parts: Sequence[Choices]) -> Choices:
        """All samples of `parts`, in order."""
        if len(parts) == 1:
            return parts[0]
        empty = np.zeros(0, np.int64)
        return cls(
            row=np.concatenate([empty, *(part.row for part in parts)]),
            n=np.concatenate([empty, *(part.n for part in parts)]),
            lengths=np.concatenate([empty, *(part.lengths for part in parts)]),
            choice=np.concatenate([empty, *(part.choice for part in parts)]),
        )

    def select(self, kept: NDArray[np.bool_]) -> Choices:
        """The samples where `kept` (samples,) is true."""
        return Choices(
            row=self.row[kept],
            n=self.n[kept],
            lengths=self.lengths[kept],
            choice=self.choice[np.repeat(kept, self.lengths)],
        )

    def of_row(self, row: int) -> list[Ints]:
        """The choices of each sample of one row."""
        offsets = offsets_of(self.lengths)
        return [self.choice[offsets[index] : offsets[index + 1]] for index in np.flatnonzero(self.row == row)]


def _site_choices(site: Site, letters: str, text_form: TextForm, words: list[str]) -> list[int]:
    """The choice of each candidate of a site. Adds the candidates to `words`; equal ones share a choice."""
    folded = fold(letters) if text_form == "preserve" else letters
    own = (site.word, letters, folded)
    known: dict[str, int] = {}
    choices = []
    for candidate in site.candidates:
        # Most candidates are plain and in lower case, so that `fold` would not change them.
        is_plain = candidate.isascii() and candidate.islower()
        if candidate in own or (not is_plain and keeps_word(candidate, site.word, letters, text_form)):
            choices.append(KEPT)
            continue
        choice = known.setdefault(candidate, len(words))
        if choice == len(words):
            words.append(candidate)
        choices.append(choice)
    return choices
