"""Candidate sets of all rows of a shard as columns: as in `Proposer.propose_steps`, without an object per word.

Tests check that both give the same results. Single texts (the service, `candidates`) use the objects, which also list
the ranked entries; whole shards use this module.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from augment_service.engine.batches import Ints, Rankings, offsets, ranges
from augment_service.engine.inputs import InputPlan, InputPlanner, Tokens
from augment_service.engine.lexicon import Lexicon
from augment_service.engine.protection import Replaceable
from augment_service.engine.word_table import WordColumns, WordTable
from shared.candidate_columns import CandidateColumns
from shared.candidates import ORIGINS
from shared.inputs.rows import SourceRow
from shared.letters import Case, in_case
from shared.params import AugmentParams
from shared.strings import Strings

_MLM, _GLOVE = ORIGINS.index("mlm"), ORIGINS.index("glove")

Neighbours = dict[str, tuple[tuple[str, float], ...]]
Questions = Generator[tuple[InputPlan, tuple[str, ...]], tuple[Rankings, Neighbours], CandidateColumns]
"""Yields one query to the models: inputs, and words for the vectors. Is sent rankings and neighbours."""


@dataclass(frozen=True, slots=True)
class _Found:
    """Candidates of several words: `counts` per word; `number` (of the strings) and `score` of each, in order."""

    counts: Ints
    number: Ints
    score: NDArray[np.float64]


class ShardCandidates:
    """Finds the candidates of whole shards. Caches the words it has seen; not thread-safe."""

    def __init__(self, lexicon: Lexicon, params: AugmentParams, replaceable: Replaceable) -> None:
        self._lexicon, self._params, self._replaceable = lexicon, params, replaceable
        self._planner = InputPlanner(lexicon, params.context)
        self._begin()

    def _begin(self) -> None:
        self._table = WordTable(self._lexicon.splitter, self._replaceable)
        vocabulary = self._lexicon.vocabulary
        self._surface = self._table.strings.numbers(vocabulary.surfaces)
        usable = self._surface[vocabulary.is_usable_after_ranking]
        self._has_equal_surfaces = len(np.unique(usable)) < len(usable)

    def questions(
        self,
        rows: Sequence[SourceRow],
        count_words: Callable[[int], None],
        is_wanted: NDArray[np.bool_] | None = None,
    ) -> Questions:
        """Candidates of the rows' unmodified texts. `count_words` is called with their number of words.

        is_wanted: (rows,) bool; the words of the other rows are not replaceable. Default: all.
        """
        if self._table.is_full:
            self._begin()
        table = self._table
        texts = [text for row in rows for text in (row.text_a, row.text_b) if text is not None]
        words = table.split(texts)
        count_words(len(words.kind))
        site = np.flatnonzero(self._may_replace(words))
        text_of_site = np.searchsorted(words.first, site, side="right") - 1
        first_text = offsets([1 if row.text_b is None else 2 for row in rows])
        if is_wanted is not None:
            kept = np.repeat(is_wanted, np.diff(first_text))[text_of_site]
            site, text_of_site = site[kept], text_of_site[kept]
        kind = words.kind[site]
        is_single = table["is_single"][kind]
        plan = self._plan(words, site[is_single], text_of_site[is_single])
        multi = table["text"][kind[~is_single]]
        distinct, place = _in_order(multi)
        asked = tuple(table.strings.values[number] for number in distinct.tolist())
        rankings, nearest = yield plan, asked
        found = [
            self._from_rankings(rankings, plan, kind[is_single]),
            _take(self._from_neighbours([nearest[word] for word in asked]), place),
        ]
        origin = np.where(is_single, _MLM, _GLOVE)
        letters = table["letters"][kind] if self._params.text == "preserve" else table["text"][kind]
        merged = _merge(found, origin)
        shown = self._shown(merged, origin, table["case"][kind])
        base, start, end = self._base_texts(words, site)
        return CandidateColumns(
            source_id=np.asarray([row.source_id for row in rows], np.int64),
            texts=base,
            first_text=first_text,
            first_site=np.searchsorted(site, words.first),
            start=start,
            end=end,
            word=table["text"][kind],
            letters=letters,
            origin=origin,
            first_candidate=offsets(shown.counts),
            candidate=shown.number,
            score=shown.score,
            strings=table.strings,
        )

    def _may_replace(self, words: WordColumns) -> NDArray[np.bool_]:
        """(words,) whether each word may be replaced: `Replaceable` vectorised over texts."""
        allowed: NDArray[np.bool_] = self._table["may_replace"][words.kind].copy()
        if self._params.text == "preserve":
            allowed &= ~words.is_part
        for text in np.flatnonzero(words.may_be_protected).tolist():
            first = int(words.first[text])
            own = self._table.words_of(words, text)
            allowed[[first + index for index in self._replaceable.protected(words.texts[text], own)]] = False
        return allowed

    def _plan(self, words: WordColumns, site: Ints, text: Ints) -> InputPlan:
        """The inputs of the single-token words with indices `site`, in the texts with indices `text`."""
        table = self._table
        counts = table["num_tokens"][words.kind]
        first_token = offsets(counts)
        tokens = Tokens(table.tokens[ranges(table["first_token"][words.kind], counts)], first_token[words.first])
        return self._planner.plan_tokens(tokens, text, first_token[site] - tokens.first[text])

    def _from_rankings(self, rankings: Rankings, plan: InputPlan, kind: Ints) -> _Found:
        """The candidates of words ranked by the masked LM: `Proposer._from_ranking` vectorised."""
        if not len(kind):
            return _nothing(0)
        table, vocabulary, k = self._table, self._lexicon.vocabulary, self._params.k
        row = plan.row
        ids, scores = rankings.ids[row], rankings.scores[row]
        is_entry = ids < len(self._surface)
        usable = is_entry & (scores > -np.inf)
        entry = np.where(is_entry, ids, 0)
        if self._params.context == "unmasked" or self._params.filter == "whole-words":
            own = table.tokens[table["first_token"][kind]][:, None]
            usable &= (entry != own) & (self._surface[entry] != table["text"][kind][:, None])
        if usable.all():
            entry, scores, usable = entry[:, :k], scores[:, :k], usable[:, :k]
        else:
            usable &= np.cumsum(usable, axis=1) <= k
        usable = usable & vocabulary.is_usable_after_ranking[entry]
        number = self._surface[entry[usable]]
        return _Found(np.count_nonzero(usable, axis=1), number, scores[usable].astype(np.float64))

    def _from_neighbours(self, nearest: Sequence[Sequence[tuple[str, float]]]) -> _Found:
        best = [own[: self._params.k] for own in nearest]
        number = self._table.strings.numbers(word for own in best for word, _ in own)
        score = np.asarray([score for own in best for _, score in own], np.float64)
        return _Found(np.asarray(list(map(len, best)), np.int64), number, score)

    def _shown(self, found: _Found, origin: Ints, case: Ints) -> _Found:
        """Candidates in the case of each word's letters, as samples show them, without duplicates."""
        shown, strings = found.number, self._table.strings
        may_repeat = origin == _MLM if self._has_equal_surfaces else np.zeros(len(origin), np.bool_)
        if self._params.text == "preserve" and self._params.case == "match":
            case_of_candidate = np.repeat(case, found.counts)
            shown = shown.copy()
            for one in (Case.LOWER, Case.UPPER, Case.TITLE):
                place = np.flatnonzero(case_of_candidate == one)
                shown[place] = _in_case(strings, one, shown[place])
            site_of = np.repeat(np.arange(len(origin)), found.counts)
            may_repeat = may_repeat.copy()
            may_repeat[site_of[shown != found.number]] = True
        if not may_repeat.any():
            return _Found(found.counts, shown, found.score)
        kept = _is_first(shown, found.counts, may_repeat)
        counts = np.bincount(np.repeat(np.arange(len(origin)), found.counts)[kept], minlength=len(origin))
        return _Found(counts, shown[kept], found.score[kept])

    def _base_texts(self, words: WordColumns, site: Ints) -> tuple[Sequence[str], Ints, Ints]:
        """The texts that samples are made from, and the sites' spans in them."""
        if self._params.text == "preserve":
            return words.texts, words.start[site], words.end[site]
        number = self._table["text"][words.kind]
        values = self._table.strings.values
        parts = [values[one] for one in number.tolist()]
        bounds = words.first.tolist()
        texts = [" ".join(parts[first:last]) for first, last in pairwise(bounds)]
        length = np.asarray(list(map(len, parts)), np.int64)
        begin = offsets(length + 1)[:-1]
        text_of_word = np.repeat(np.arange(len(texts)), np.diff(words.first))
        start = (begin - np.concatenate([begin, [0]])[words.first[text_of_word]])[site]
        return texts, start, start + length[site]


def _in_case(strings: Strings, case: Case, numbers: Ints) -> Ints:
    return strings.map(case, lambda value: in_case(value, case), numbers)


def _in_order(numbers: Ints) -> tuple[Ints, Ints]:
    """The distinct numbers in order of first occurrence, and the index of each number among them."""
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return numbers[first[order]], place[inverse]


def _nothing(num_words: int) -> _Found:
    return _Found(np.zeros(num_words, np.int64), np.zeros(0, np.int64), np.zeros(0))


def _take(found: _Found, words: Ints) -> _Found:
    """The candidates of the words with these indices."""
    counts = found.counts[words]
    place = ranges(offsets(found.counts)[:-1][words], counts)
    return _Found(counts, found.number[place], found.score[place])


def _merge(found: Sequence[_Found], origin: Ints) -> _Found:
    """The candidates of all words, where word i is the next word of `found[origin[i]]`."""
    counts = np.zeros(len(origin), np.int64)
    for number, one in enumerate(found):
        counts[origin == number] = one.counts
    first = offsets(counts)
    merged, score = np.empty(first[-1], np.int64), np.empty(first[-1], np.float64)
    for number, one in enumerate(found):
        place = ranges(first[:-1][origin == number], one.counts)
        merged[place], score[place] = one.number, one.score
    return _Found(counts, merged, score)


def _is_first(number: Ints, counts: Ints, looked_at: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each candidate is the first of its word with its number; always True for words not `looked_at`."""
    is_first = np.ones(len(number), np.bool_)
    word = np.repeat(np.arange(len(counts)), counts)
    place = np.flatnonzero(looked_at[word])
    order = place[np.lexsort((place, number[place], word[place]))]
    is_same = (number[order][1:] == number[order][:-1]) & (word[order][1:] == word[order][:-1])
    is_first[order[1:][is_same]] = False
    return is_first
