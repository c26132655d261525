"""The one path from texts to candidate sets and samples, for job, service and command. Knows neither Ray nor files.

The path is written as generators that yield what they ask of the models and are sent the answers, so that the job can
answer from models of its own, and the service from passes that many requests share. The answer for a call depends on
the rows of that call alone, so one call per shard gives the same bytes anywhere.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from augment_service.engine.batches import ModelInput, plan_batches
from augment_service.engine.lexicon import Lexicon
from augment_service.engine.masked_lm import MaskedLM, Ranking
from augment_service.engine.words import Word, may_replace
from shared.inputs.rows import SourceRow
from shared.params import AugmentParams
from shared.sampling import Origin, RowCandidates, Samples, Site, TextCandidates, draw_samples

DEFAULT_BATCH_TOKENS = 1024
OWN_WORD_MARGIN = 1
"""One more entry is ranked than wanted, since the word itself may be left out."""


Found = TypeVar("Found")
Nearest = dict[str, tuple[tuple[str, float], ...]]


@dataclass(frozen=True, slots=True)
class Ask:
    """What a text needs of the models: the `num_ranked` best entries at the positions of `inputs` (`whole_words`: of
    whole words only), and the `num_nearest` neighbours of each of `words`."""

    inputs: tuple[ModelInput, ...]
    num_ranked: int
    whole_words: bool
    words: tuple[str, ...]
    num_nearest: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One Ranking per input, and the neighbours of each word."""

    rankings: Sequence[Ranking]
    nearest: Nearest


Steps = Generator[Ask, Answer, Found]
"""Work that yields what it asks of the models, is sent each answer, and returns what it found."""


class Neighbours(Protocol):
    """Where candidates of multi-piece words come from: vectors in this process, or an actor that holds them."""

    def nearest(self, words: Sequence[str], k: int) -> Nearest:
        """Per word its K nearest (word, cosine), best first; empty for an unknown word."""
        ...


@dataclass(frozen=True, slots=True)
class Proposal:
    """Candidates for one word. `position`: the masked piece's index in the model input, None for GloVe; `ranked`: the
    best (entry, score) before anything was dropped."""

    word_index: int
    origin: Origin
    position: int | None
    candidates: tuple[str, ...]
    scores: tuple[float, ...]
    ranked: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class TextProposals:
    """A text, its words, and the proposals for those that may be replaced, in order."""

    text: str
    words: tuple[Word, ...]
    proposals: tuple[Proposal, ...]


@dataclass(slots=True)
class EngineStatistics:
    """Counts since the engine was made; they stand in the commits."""

    words: int = 0
    mlm_sites: int = 0
    glove_sites: int = 0
    sites_without_candidates: int = 0
    model_inputs: int = 0
    model_tokens: int = 0


class Proposer:
    """Candidates and samples of rows as steps; holds no model."""

    def __init__(self, lexicon: Lexicon, params: AugmentParams) -> None:
        self.lexicon, self.params = lexicon, params
        self.vocabulary, self.splitter = lexicon.vocabulary, lexicon.splitter
        self.statistics = EngineStatistics()

    def candidates_steps(self, rows: Sequence[SourceRow]) -> Steps[list[RowCandidates]]:
        """Candidate sets of each row, from its unmodified texts."""
        texts = [text for row in rows for text in (row.text_a, row.text_b) if text is not None]
        found = iter([self.text_candidates(one) for one in (yield from self.propose_steps(texts))])
        return [
            RowCandidates(row.source_id, next(found), next(found) if row.text_b is not None else None) for row in rows
        ]

    def samples_steps(self, rows: Sequence[SourceRow]) -> Steps[tuple[list[RowCandidates], Samples]]:
        """Samples of each row, and the texts they replace words of."""
        if self.params.conditioning == "sequential":
            from augment_service.engine.sequential import sequential_steps

            return (yield from sequential_steps(self, rows))
        found = yield from self.candidates_steps(rows)
        return found, draw_samples(found, self.params)

    def propose_steps(self, texts: Sequence[str], num_ranked: int = 0) -> Steps[list[TextProposals]]:
        """Words and proposals of each text; `num_ranked` best entries are listed besides the K candidates."""
        words_of = self.splitter.split(texts)
        places = self._places(words_of)
        self.statistics.words += sum(map(len, words_of))
        found = iter((yield from self.rank_steps([(words_of[text], index) for text, index in places], num_ranked)))
        proposals: list[list[Proposal]] = [[] for _ in texts]
        for text, _ in places:
            proposal = next(found)
            self.statistics.sites_without_candidates += not proposal.candidates
            proposals[text].append(proposal)
        return [
            TextProposals(text, words, tuple(found))
            for text, words, found in zip(texts, words_of, proposals, strict=True)
        ]

    def workload(self, texts: Sequence[str]) -> tuple[list[ModelInput], set[str]]:
        """What `propose` would ask for, without asking: distinct model inputs, and words for the vectors."""
        words_of = self.splitter.split(texts)
        places = [(words_of[text], index) for text, index in self._places(words_of)]
        inputs, _ = self._inputs([(words, index) for words, index in places if words[index].is_single_piece])
        multi = {words[index].text for words, index in places if not words[index].is_single_piece}
        return list(dict.fromkeys(inputs)), multi

    def _places(self, words_of: Sequence[Sequence[Word]]) -> list[tuple[int, int]]:
        """(text, word) of every word that may be replaced."""
        return [
            (text, index)
            for text, words in enumerate(words_of)
            for index, word in enumerate(words)
            if may_replace(word, self.params.words)
        ]

    def rank_steps(self, places: Sequence[tuple[Sequence[Word], int]], num_ranked: int = 0) -> Steps[list[Proposal]]:
        """Proposals for words, each given as (words of its text, index): the masked LM's for a single-piece word, its
        neighbours for another; one without a vector is looked up in lower case."""
        single = [place for place in places if place[0][place[1]].is_single_piece]
        multi = [words[index].text for words, index in places if not words[index].is_single_piece]
        self.statistics.mlm_sites += len(single)
        self.statistics.glove_sites += len(multi)
        inputs, answer_of = self._inputs(single)
        width = max(self.params.k + OWN_WORD_MARGIN, num_ranked)
        whole_words, num_nearest = self.params.filter == "whole-words", max(self.params.k, num_ranked)
        distinct = tuple(dict.fromkeys(multi))
        rankings: Sequence[Ranking] = ()
        nearest: Nearest = {}
        if inputs or distinct:
            answer = yield Ask(tuple(inputs), width, whole_words, distinct, num_nearest)
            rankings, nearest = answer.rankings, answer.nearest
        lower = {word: word.lower() for word in nearest if not nearest[word] and word != word.lower()}
        if lower:
            answer = yield Ask((), width, whole_words, tuple(dict.fromkeys(lower.values())), num_nearest)
            nearest = nearest | {word: answer.nearest[instead] for word, instead in lower.items()}
        leaves_out_own = self.params.context == "unmasked" or whole_words
        answers = iter(answer_of)
        proposals = []
        for words, index in places:
            if not words[index].is_single_piece:
                proposals.append(self._from_neighbours(index, nearest[words[index].text]))
                continue
            number, place = next(answers)
            position = inputs[number].positions[place]
            proposals.append(
                self._from_ranking(words[index], index, rankings[number], place, position, leaves_out_own, num_ranked)
            )
        return proposals

    def _inputs(self, places: Sequence[tuple[Sequence[Word], int]]) -> tuple[list[ModelInput], list[tuple[int, int]]]:
        """Model inputs, and for each place (input, which of its positions)."""
        inputs: list[ModelInput] = []
        answer_of: list[tuple[int, int]] = []
        flat_of: dict[int, tuple[list[int], NDArray[np.int64]]] = {}
        window_input: dict[tuple[int, int], int] = {}
        positions: dict[int, list[int]] = {}
        for words, index in places:
            if id(words) not in flat_of:
                flat_of[id(words)] = _flatten(words)
            ids, starts = flat_of[id(words)]
            place = int(starts[index])
            if self.params.context != "unmasked":
                inputs.append(self._masked_input(ids, place))
                answer_of.append((len(inputs) - 1, 0))
                continue
            # Windows overlap by half; a word is answered by the one whose middle is nearest.
            low, high = self._stride_window(len(ids), place)
            key = (id(words), low)
            if key not in window_input:
                window_input[key] = len(inputs)
                positions[len(inputs)] = []
                inputs.append(self._framed(ids[low:high], ()))
            number = window_input[key]
            positions[number].append(place - low + 1)
            answer_of.append((number, len(positions[number]) - 1))
        for number, wanted in positions.items():
            one = inputs[number]
            inputs[number] = ModelInput(one.ids, tuple(wanted), one.num_first_segment)
        return inputs, answer_of

    def _masked_input(self, ids: list[int], place: int) -> ModelInput:
        lexicon = self.lexicon
        room = lexicon.max_length - 2 if self.params.context == "single" else (lexicon.max_length - 3) // 2
        low = min(max(place - room // 2, 0), max(len(ids) - room, 0))
        window = ids[low : low + room]
        masked = [*window[: place - low], lexicon.mask_id, *window[place - low + 1 :]]
        first = (lexicon.cls_id, *masked, lexicon.sep_id)
        if self.params.context == "single":
            return ModelInput(first, (place - low + 1,), len(first))
        return ModelInput((*first, *window, lexicon.sep_id), (place - low + 1,), len(first))

    def _framed(self, ids: Sequence[int], positions: tuple[int, ...]) -> ModelInput:
        framed = (self.lexicon.cls_id, *ids, self.lexicon.sep_id)
        return ModelInput(framed, positions, len(framed))

    def _stride_window(self, length: int, place: int) -> tuple[int, int]:
        room = self.lexicon.max_length - 2
        if length <= room:
            return 0, length
        stride = room // 2
        low = min(max(round((place - room / 2) / stride), 0) * stride, length - room)
        return low, low + room

    def _from_ranking(
        self,
        word: Word,
        index: int,
        ranking: Ranking,
        answer: int,
        position: int,
        leaves_out_own: bool,
        num_ranked: int,
    ) -> Proposal:
        own = word.piece_ids[0]
        ids, scores = ranking.ids[answer].tolist(), ranking.scores[answer].tolist()
        surfaces = self.vocabulary.surfaces
        listed = [(one, score) for one, score in zip(ids, scores, strict=True) if one < len(surfaces)]
        usable = [
            (one, score)
            for one, score in listed
            if score > float("-inf") and not (leaves_out_own and (one == own or surfaces[one] == word.text))
        ][: self.params.k]
        is_usable = self.vocabulary.is_usable_after_ranking
        kept: dict[str, float] = {}
        for one, score in usable:
            if is_usable[one]:
                kept.setdefault(surfaces[one], score)
        to_piece = self.lexicon.tokenizer.convert_ids_to_tokens
        ranked = tuple((str(to_piece(one)), score) for one, score in listed[:num_ranked]) if num_ranked else ()
        return Proposal(index, "mlm", position, tuple(kept), tuple(kept.values()), ranked)

    def _from_neighbours(self, index: int, nearest: Sequence[tuple[str, float]]) -> Proposal:
        best = nearest[: self.params.k]
        return Proposal(
            index, "glove", None, tuple(word for word, _ in best), tuple(score for _, score in best), tuple(nearest)
        )

    def text_candidates(self, found: TextProposals) -> TextCandidates:
        """The text that samples are made from, and its sites."""
        text, spans = self.base_text(found.text, found.words)
        sites = tuple(
            Site(*spans[one.word_index], found.words[one.word_index].text, one.origin, one.candidates, one.scores)
            for one in found.proposals
        )
        return TextCandidates(text, sites)

    def base_text(self, text: str, words: Sequence[Word]) -> tuple[str, list[tuple[int, int]]]:
        """The text that samples are made from, and each word's span in it."""
        if self.params.text == "preserve":
            return text, [(word.start, word.end) for word in words]
        spans, place = [], 0
        for word in words:
            spans.append((place, place + len(word.text)))
            place += len(word.text) + 1
        return " ".join(word.text for word in words), spans


class AugmentEngine(Proposer):
    """Steps answered by a masked LM and a source of neighbours of its own."""

    def __init__(
        self,
        masked_lm: MaskedLM,
        neighbours: Neighbours,
        params: AugmentParams,
        batch_tokens: int = DEFAULT_BATCH_TOKENS,
    ) -> None:
        super().__init__(masked_lm.lexicon, params)
        self.masked_lm, self.neighbours, self.batch_tokens = masked_lm, neighbours, batch_tokens

    def candidates(self, rows: Sequence[SourceRow]) -> list[RowCandidates]:
        """Candidate sets of each row, from its unmodified texts."""
        return self._run(self.candidates_steps(rows))

    def samples(self, rows: Sequence[SourceRow]) -> tuple[list[RowCandidates], Samples]:
        """Samples of each row, and the texts they replace words of."""
        return self._run(self.samples_steps(rows))

    def propose(self, texts: Sequence[str], num_ranked: int = 0) -> list[TextProposals]:
        """Words and proposals of each text; `num_ranked` best entries are listed besides the K candidates."""
        return self._run(self.propose_steps(texts, num_ranked))

    def _run(self, steps: Steps[Found]) -> Found:
        try:
            ask = next(steps)
            while True:
                ask = steps.send(self._answer(ask))
        except StopIteration as finished:
            found: Found = finished.value
            return found

    def _answer(self, ask: Ask) -> Answer:
        plan = plan_batches(ask.inputs, self.batch_tokens)
        self.statistics.model_inputs += len(plan.unique)
        self.statistics.model_tokens += sum(map(len, plan.unique))
        excluded = ~self.vocabulary.is_whole_word if ask.whole_words else None
        rankings = self.masked_lm.rank(plan.unique, plan.batches, ask.num_ranked, excluded) if ask.inputs else []
        nearest = self.neighbours.nearest(ask.words, ask.num_nearest) if ask.words else {}
        return Answer([rankings[index] for index in plan.index_of], nearest)


def _flatten(words: Iterable[Word]) -> tuple[list[int], NDArray[np.int64]]:
    """Pieces of a text one after another, and where each word's begin."""
    ids: list[int] = []
    starts: list[int] = []
    for word in words:
        starts.append(len(ids))
        ids += word.piece_ids
    return ids, np.asarray(starts, np.int64)
