"""The one path from texts to candidate sets and samples, for job, service and command. Knows neither Ray nor files.

The answer for a call depends on the rows of that call alone, so one call per shard gives the same bytes anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from augment_service.batches import ModelInput, plan_batches
from augment_service.masked_lm import MaskedLM, Ranking
from augment_service.vocabulary import read_vocabulary
from augment_service.words import Word, WordSplitter, may_replace
from shared.params import AugmentParams
from shared.rows import SourceRow
from shared.sampling import Origin, RowCandidates, Samples, Site, TextCandidates, draw_samples

DEFAULT_BATCH_TOKENS = 1024
OWN_WORD_MARGIN = 1
"""One more entry is ranked than wanted, since the word itself may be left out."""


class Neighbours(Protocol):
    """Where candidates of multi-piece words come from: vectors in this process, or an actor that holds them."""

    def nearest(self, words: Sequence[str], k: int) -> dict[str, tuple[tuple[str, float], ...]]:
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


class AugmentEngine:
    """Candidates and samples of rows, from a masked LM and a source of neighbours."""

    def __init__(
        self,
        masked_lm: MaskedLM,
        neighbours: Neighbours,
        params: AugmentParams,
        batch_tokens: int = DEFAULT_BATCH_TOKENS,
    ) -> None:
        self.masked_lm, self.neighbours, self.params = masked_lm, neighbours, params
        self.batch_tokens = batch_tokens
        self.vocabulary = read_vocabulary(masked_lm.tokenizer)
        self.splitter = WordSplitter(masked_lm.tokenizer)
        self.statistics = EngineStatistics()
        self._excluded = None if params.filter == "reference" else ~self.vocabulary.is_whole_word

    def candidates(self, rows: Sequence[SourceRow]) -> list[RowCandidates]:
        """Candidate sets of each row, from its unmodified texts."""
        texts = [text for row in rows for text in (row.text_a, row.text_b) if text is not None]
        found = iter([self._text_candidates(one) for one in self.propose(texts)])
        return [
            RowCandidates(row.source_id, next(found), next(found) if row.text_b is not None else None) for row in rows
        ]

    def samples(self, rows: Sequence[SourceRow]) -> tuple[list[RowCandidates], Samples]:
        """Samples of each row, and the texts they replace words of."""
        if self.params.conditioning == "sequential":
            from augment_service.sequential import sequential_samples

            return sequential_samples(self, rows)
        found = self.candidates(rows)
        return found, draw_samples(found, self.params)

    def propose(self, texts: Sequence[str], num_ranked: int = 0) -> list[TextProposals]:
        """Words and proposals of each text; `num_ranked` best entries are listed besides the K candidates."""
        words_of = self.splitter.split(texts)
        places = self._places(words_of)
        self.statistics.words += sum(map(len, words_of))
        single = [(words_of[text], index) for text, index in places if words_of[text][index].is_single_piece]
        from_mlm = iter(self.rank_words(single, num_ranked))
        multi = [words_of[text][index].text for text, index in places if not words_of[text][index].is_single_piece]
        nearest = self.nearest(multi, num_ranked)
        proposals: list[list[Proposal]] = [[] for _ in texts]
        for text, index in places:
            word = words_of[text][index]
            proposal = next(from_mlm) if word.is_single_piece else self._from_neighbours(index, nearest[word.text])
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

    def nearest(self, words: Sequence[str], num_ranked: int = 0) -> dict[str, tuple[tuple[str, float], ...]]:
        """Neighbours of multi-piece words; one without a vector is looked up in lower case."""
        self.statistics.glove_sites += len(words)
        if not words:
            return {}
        width = max(self.params.k, num_ranked)
        found = self.neighbours.nearest(list(dict.fromkeys(words)), width)
        lower = [word for word in found if not found[word] and word != word.lower()]
        instead = self.neighbours.nearest([word.lower() for word in lower], width) if lower else {}
        return found | {word: instead[word.lower()] for word in lower}

    def rank_words(self, places: Sequence[tuple[Sequence[Word], int]], num_ranked: int = 0) -> list[Proposal]:
        """Masked-LM proposals for single-piece words, each given as (words of its text, index)."""
        self.statistics.mlm_sites += len(places)
        inputs, answer_of = self._inputs(places)
        plan = plan_batches(inputs, self.batch_tokens)
        self.statistics.model_inputs += len(plan.unique)
        self.statistics.model_tokens += sum(map(len, plan.unique))
        leaves_out_own = self.params.context == "unmasked" or self.params.filter == "whole-words"
        width = max(self.params.k + OWN_WORD_MARGIN, num_ranked)
        rankings = self.masked_lm.rank(plan.unique, plan.batches, width, self._excluded) if inputs else []
        proposals = []
        for (words, index), (input_index, answer) in zip(places, answer_of, strict=True):
            ranking = rankings[plan.index_of[input_index]]
            position = inputs[input_index].positions[answer]
            proposals.append(
                self._from_ranking(words[index], index, ranking, answer, position, leaves_out_own, num_ranked)
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
        mlm = self.masked_lm
        room = mlm.max_length - 2 if self.params.context == "single" else (mlm.max_length - 3) // 2
        low = min(max(place - room // 2, 0), max(len(ids) - room, 0))
        window = ids[low : low + room]
        masked = [*window[: place - low], mlm.mask_id, *window[place - low + 1 :]]
        first = (mlm.cls_id, *masked, mlm.sep_id)
        if self.params.context == "single":
            return ModelInput(first, (place - low + 1,), len(first))
        return ModelInput((*first, *window, mlm.sep_id), (place - low + 1,), len(first))

    def _framed(self, ids: Sequence[int], positions: tuple[int, ...]) -> ModelInput:
        framed = (self.masked_lm.cls_id, *ids, self.masked_lm.sep_id)
        return ModelInput(framed, positions, len(framed))

    def _stride_window(self, length: int, place: int) -> tuple[int, int]:
        room = self.masked_lm.max_length - 2
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
        to_piece = self.masked_lm.tokenizer.convert_ids_to_tokens
        ranked = tuple((str(to_piece(one)), score) for one, score in listed[:num_ranked]) if num_ranked else ()
        return Proposal(index, "mlm", position, tuple(kept), tuple(kept.values()), ranked)

    def _from_neighbours(self, index: int, nearest: Sequence[tuple[str, float]]) -> Proposal:
        best = nearest[: self.params.k]
        return Proposal(
            index, "glove", None, tuple(word for word, _ in best), tuple(score for _, score in best), tuple(nearest)
        )

    def _text_candidates(self, found: TextProposals) -> TextCandidates:
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


def _flatten(words: Iterable[Word]) -> tuple[list[int], NDArray[np.int64]]:
    """Pieces of a text one after another, and where each word's begin."""
    ids: list[int] = []
    starts: list[int] = []
    for word in words:
        starts.append(len(ids))
        ids += word.piece_ids
    return ids, np.asarray(starts, np.int64)
