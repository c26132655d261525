"""Rows -> candidate sets and samples, with models in this process. Knows nothing of Ray or files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from augment_service.engine.batches import Ints, ModelInput, Ranking, Rankings, plan_batches
from augment_service.engine.conditioning import samples_steps
from augment_service.engine.lexicon import Lexicon
from augment_service.engine.proposer import Answer, Ask, Found, Neighbours, Proposer, Steps, TextProposals
from shared.candidates import RowCandidates, Samples
from shared.inputs.rows import SourceRow
from shared.label_quotas import LabelQuotas
from shared.params import AugmentParams

DEFAULT_BATCH_TOKENS = 1024


class Ranker(Protocol):
    """A masked LM: in this process, or reached through a pipe."""

    lexicon: Lexicon

    def rank(
        self,
        inputs: Sequence[ModelInput],
        batches: Sequence[Sequence[int] | Ints],
        k: int,
        excluded: NDArray[np.bool_] | None,
    ) -> Rankings:
        """As MaskedLM.rank."""
        ...


class AugmentEngine(Proposer):
    """Runs the steps with a masked LM and a source of neighbours."""

    def __init__(
        self,
        masked_lm: Ranker,
        neighbours: Neighbours,
        params: AugmentParams,
        batch_tokens: int = DEFAULT_BATCH_TOKENS,
        quotas: LabelQuotas | None = None,
    ) -> None:
        super().__init__(masked_lm.lexicon, params, quotas)
        self.masked_lm, self.neighbours, self.batch_tokens = masked_lm, neighbours, batch_tokens

    def candidates(self, rows: Sequence[SourceRow]) -> Sequence[RowCandidates]:
        """Candidate sets of each row, from its unmodified texts."""
        return self._run(self.candidates_steps(rows))

    def samples(self, rows: Sequence[SourceRow]) -> tuple[Sequence[RowCandidates], Samples]:
        """Samples of each row, and the texts in which they replace words."""
        return self._run(samples_steps(self, rows))

    def propose(self, texts: Sequence[str], num_ranked: int = 0, *, protects: bool = False) -> list[TextProposals]:
        """Words and proposals of each text. The `num_ranked` best entries are listed in addition to the K candidates.

        protects: skip the words that the parameters protect, as samples do.
        """
        return self._run(self.propose_steps(texts, num_ranked, protects=protects))

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
        self.statistics.model_tokens += len(plan.unique.ids)
        excluded = ~self.vocabulary.is_whole_word if ask.whole_words else None
        rankings: Sequence[Ranking] = ()
        if ask.inputs:
            found = self.masked_lm.rank(plan.unique, plan.batches, ask.num_ranked, excluded)
            rankings = found.take(plan.index_of)
        nearest = self.neighbours.nearest(ask.words, ask.num_nearest) if ask.words else {}
        return Answer(rankings, nearest)
