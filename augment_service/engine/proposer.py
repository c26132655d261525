"""Candidates for the words of texts, as steps that query the models. Holds no model and loads no torch, Ray or HTTP.

The work is written as generators: each yields a query to the models (`Ask`) and is sent the `Answer`. The job answers
from models in its own process, the service from model passes shared by many requests. Results depend only on the rows
of the call, so one call per shard gives the same bytes anywhere.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from augment_service.engine.batches import Ints, ModelInput, ModelInputs, Ranking, Rankings
from augment_service.engine.inputs import InputPlanner, Place
from augment_service.engine.lexicon import Lexicon
from augment_service.engine.protection import Replaceable
from augment_service.engine.shard_candidates import ShardCandidates
from augment_service.engine.words import Word
from shared.candidates import Origin, RowCandidates, Site, TextCandidates
from shared.inputs.rows import SourceRow
from shared.letters import match_case
from shared.params import AugmentParams

if TYPE_CHECKING:
    from shared.label_quotas import LabelQuotas

OWN_WORD_MARGIN = 1
"""One extra entry is ranked, because the word itself may be dropped."""

Found = TypeVar("Found")
Nearest = dict[str, tuple[tuple[str, float], ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A query to the models.

    The masked LM returns the `num_ranked` best entries at the positions of `inputs` (with `whole_words`, only entries
    that are whole words). The word vectors return the `num_nearest` neighbours of each of `words`.
    """

    inputs: Sequence[ModelInput] = ()
    num_ranked: int
    whole_words: bool
    words: tuple[str, ...] = ()
    num_nearest: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One Ranking per input, and the neighbours of each word."""

    rankings: Sequence[Ranking]
    nearest: Nearest


Steps = Generator[Ask, Answer, Found]
"""A generator that yields queries to the models, is sent each answer, and returns the result."""


class Neighbours(Protocol):
    """Source of candidates for multi-token words: vectors in this process, or an actor that holds them."""

    def nearest(self, words: Sequence[str], k: int) -> Nearest:
        """The K nearest (word, cosine) of each word, best first; empty for an unknown word."""
        ...


@dataclass(frozen=True, slots=True)
class Proposal:
    """Candidates for one word.

    position: index of the masked token in the model input, None for GloVe. ranked: the best (entry, score) pairs
    before filtering.
    """

    word_index: int
    origin: Origin
    position: int | None
    candidates: tuple[str, ...]
    scores: tuple[float, ...]
    ranked: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class TextProposals:
    """A text, its words, and the proposals for the replaceable ones, in order."""

    text: str
    words: tuple[Word, ...]
    proposals: tuple[Proposal, ...]


@dataclass(slots=True)
class EngineStatistics:
    """Counters since the engine was created; commits record them per shard."""

    words: int = 0
    model_inputs: int = 0
    model_tokens: int = 0


class Proposer:
    """Candidates of rows, as steps. quotas: N_a per label, for labels that have their own."""

    def __init__(self, lexicon: Lexicon, params: AugmentParams, quotas: LabelQuotas | None = None) -> None:
        self.lexicon, self.params, self.quotas = lexicon, params, quotas
        self.vocabulary, self.splitter = lexicon.vocabulary, lexicon.splitter
        self.statistics = EngineStatistics()
        self.replaceable = Replaceable(params, self.splitter)
        self._planner = InputPlanner(lexicon, params.context)

    @cached_property
    def _shard_candidates(self) -> ShardCandidates:
        return ShardCandidates(self.lexicon, self.params, self.replaceable)

    def n_a_of(self, rows: Sequence[SourceRow]) -> Ints:
        """(rows,) int64 number of samples wanted for each row."""
        if self.quotas is None:
            return np.full(len(rows), self.params.n_a, np.int64)
        return self.quotas.of_rows((row.label for row in rows), self.params.n_a)

    def candidates_steps(
        self, rows: Sequence[SourceRow], is_wanted: NDArray[np.bool_] | None = None
    ) -> Steps[Sequence[RowCandidates]]:
        """Candidate sets of each row, from its unmodified texts.

        is_wanted: (rows,) bool; the other rows are not sent to the models and get no sets. Default: all.
        """
        questions = self._shard_candidates.questions(rows, self._count_words, is_wanted)
        plan, words = next(questions)
        answer = yield from self._answer_steps(plan.inputs, words)
        try:
            questions.send((Rankings.of(answer.rankings), answer.nearest))
        except StopIteration as finished:
            found: Sequence[RowCandidates] = finished.value
        return found

    def _count_words(self, count: int) -> None:
        self.statistics.words += count

    def propose_steps(
        self, texts: Sequence[str], num_ranked: int = 0, *, protects: bool = False
    ) -> Steps[list[TextProposals]]:
        """Words and proposals of each text. The `num_ranked` best entries are listed in addition to the K candidates.

        protects: skip the words that the parameters protect, as samples do.
        """
        words_of = self.splitter.split(texts)
        places = self._places(texts, words_of, protects)
        self.statistics.words += sum(map(len, words_of))
        found = yield from self.rank_steps(words_of, places, num_ranked)
        proposals: list[list[Proposal]] = [[] for _ in texts]
        for place, proposal in zip(places, found, strict=True):
            proposals[place.text].append(proposal)
        return [
            TextProposals(text, words, tuple(own)) for text, words, own in zip(texts, words_of, proposals, strict=True)
        ]

    def workload(self, texts: Sequence[str]) -> tuple[list[ModelInput], set[str]]:
        """The distinct model inputs and vector lookups that the steps of these texts would request."""
        words_of = self.splitter.split(texts)
        single, multi = _by_kind(words_of, self._places(texts, words_of, protects=True))
        inputs = self._planner.plan(words_of, single).inputs
        return list(dict.fromkeys(inputs)), {words_of[place.text][place.word].text for place in multi}

    def rank_steps(
        self, words_of: Sequence[Sequence[Word]], places: Sequence[Place], num_ranked: int = 0
    ) -> Steps[list[Proposal]]:
        """Proposals for the words at `places`, in order.

        Single-token words are answered by the masked LM, other words by the word vectors. A word without a vector is
        looked up in lower case.
        """
        single, multi = _by_kind(words_of, places)
        words = [words_of[place.text][place.word].text for place in multi]
        plan = self._planner.plan(words_of, single)
        answer = yield from self._answer_steps(plan.inputs, words, num_ranked)
        nearest = answer.nearest
        leaves_out_own = self.params.context == "unmasked" or self.params.filter == "whole-words"
        rankings = Rankings.of(answer.rankings)
        answers = iter(zip(plan.row.tolist(), plan.model_position.tolist(), strict=True))
        proposals = []
        for place in places:
            word = words_of[place.text][place.word]
            if not word.is_single_piece:
                proposals.append(self._from_neighbours(place.word, nearest[word.text]))
                continue
            row, model_position = next(answers)
            listed = zip(rankings.ids[row].tolist(), rankings.scores[row].tolist(), strict=True)
            own = word if leaves_out_own else None
            proposals.append(self._from_ranking(place.word, model_position, list(listed), own, num_ranked))
        return proposals

    def _answer_steps(self, inputs: ModelInputs, words: Sequence[str], num_ranked: int = 0) -> Steps[Answer]:
        """Rankings of the inputs, and neighbours of the words, in lower case if a word has no vector."""
        width, num_nearest = max(self.params.k + OWN_WORD_MARGIN, num_ranked), max(self.params.k, num_ranked)
        whole_words = self.params.filter == "whole-words"

        def ask(inputs: Sequence[ModelInput], asked_words: Sequence[str]) -> Ask:
            distinct = tuple(dict.fromkeys(asked_words))
            return Ask(
                inputs=inputs, num_ranked=width, whole_words=whole_words, words=distinct, num_nearest=num_nearest
            )

        answer = (yield ask(inputs, words)) if inputs or words else Answer((), {})
        nearest = answer.nearest
        lower = {word: word.lower() for word in nearest if not nearest[word] and word != word.lower()}
        if lower:
            instead = yield ask((), list(lower.values()))
            nearest = nearest | {word: instead.nearest[other] for word, other in lower.items()}
        return Answer(answer.rankings, nearest)

    def text_candidates(self, found: TextProposals) -> TextCandidates:
        """The text that samples are made from, and its sites, with candidates as samples show them."""
        text, spans = self.base_text(found.text, found.words)
        sites = []
        for one in found.proposals:
            start, end = spans[one.word_index]
            shown = self.shown(one.candidates, text[start:end])
            scores = one.scores
            if shown != one.candidates and len(set(shown)) < len(shown):
                best: dict[str, float] = {}
                for word, score in zip(shown, scores, strict=True):
                    best.setdefault(word, score)
                shown, scores = tuple(best), tuple(best.values())
            sites.append(Site(start, end, found.words[one.word_index].text, one.origin, shown, scores))
        return TextCandidates(text, tuple(sites))

    def shown(self, candidates: tuple[str, ...], letters: str) -> tuple[str, ...]:
        """Candidates as samples show them in place of the `letters` of the text."""
        if self.params.text != "preserve" or self.params.case != "match":
            return candidates
        return tuple([match_case(one, letters) for one in candidates])

    def base_text(self, text: str, words: Sequence[Word]) -> tuple[str, list[tuple[int, int]]]:
        """The text that samples are made from, and each word's span in it."""
        if self.params.text == "preserve":
            return text, [(word.start, word.end) for word in words]
        spans, start = [], 0
        for word in words:
            spans.append((start, start + len(word.text)))
            start += len(word.text) + 1
        return " ".join(word.text for word in words), spans

    def _places(self, texts: Sequence[str], words_of: Sequence[Sequence[Word]], protects: bool) -> list[Place]:
        """All replaceable words, in order."""
        return [
            Place(number, index)
            for number, (text, words) in enumerate(zip(texts, words_of, strict=True))
            for index in self.replaceable(text, words, protects)
        ]

    def _from_ranking(
        self, word_index: int, position: int, ranked: list[tuple[int, float]], left_out: Word | None, num_ranked: int
    ) -> Proposal:
        """Candidates among the `ranked` (entry, score) of a masked position, without the word `left_out`."""
        surfaces = self.vocabulary.surfaces
        listed = [(entry, score) for entry, score in ranked if entry < len(surfaces)]
        usable = [(entry, score) for entry, score in listed if score > float("-inf")]
        if left_out is not None:
            own = left_out.piece_ids[0]
            usable = [one for one in usable if one[0] != own and surfaces[one[0]] != left_out.text]
        is_usable = self.vocabulary.is_usable_after_ranking
        kept: dict[str, float] = {}
        for entry, score in usable[: self.params.k]:
            if is_usable[entry]:
                kept.setdefault(surfaces[entry], score)
        to_token = self.lexicon.tokenizer.convert_ids_to_tokens
        shown = tuple((str(to_token(entry)), score) for entry, score in listed[:num_ranked])
        return Proposal(word_index, "mlm", position, tuple(kept), tuple(kept.values()), shown)

    def _from_neighbours(self, word_index: int, nearest: Sequence[tuple[str, float]]) -> Proposal:
        best = nearest[: self.params.k]
        words, scores = tuple(word for word, _ in best), tuple(score for _, score in best)
        return Proposal(word_index, "glove", None, words, scores, tuple(nearest))


def _by_kind(words_of: Sequence[Sequence[Word]], places: Sequence[Place]) -> tuple[list[Place], list[Place]]:
    """Places of single-token words, and places of all others."""
    single: list[Place] = []
    multi: list[Place] = []
    for place in places:
        (single if words_of[place.text][place.word].is_single_piece else multi).append(place)
    return single, multi
