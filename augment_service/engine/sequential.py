"""Conditioning `sequential`: Algorithm 1 as printed, with candidates conditioned on the sample as replaced so far.

All (row, draw) pairs of a call advance in lock-step: step i masks word i of every text that has one, so the model still
gets full batches. Draws use the same counters as `draw_samples`, so both conditionings replace the same words, and only
drawn words are sent to the model. Unlike in `draw_samples`, a row whose draws are exhausted gets no enumerated samples,
because the candidate sets differ from draw to draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from augment_service.engine.inputs import Place
from augment_service.engine.proposer import Proposal, Proposer, Steps
from augment_service.engine.words import Word
from shared.candidates import ORIGINS, Origin, RowCandidates, Samples, Site, TextCandidates, offsets_of
from shared.inputs.rows import SourceRow
from shared.letters import keeps_word
from shared.rendering import spell
from shared.rng import uniforms

_DRAW_FACTORS = (1, 3)

Replaced = dict[int, tuple[str, Origin]]
"""Word index in the row -> new word and its origin."""


@dataclass(slots=True)
class _Draft:
    """One unfinished draw of one row: the current words of each text, and the replacements so far."""

    row: int
    draw: int
    words: list[list[Word]]
    replaced: Replaced = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Spot:
    """A replaceable word of a row: its text (0 or 1), and its index in that text."""

    column: int
    index: int


def sequential_steps(proposer: Proposer, rows: Sequence[SourceRow]) -> Steps[tuple[Sequence[RowCandidates], Samples]]:
    """Texts with their sites (without candidates), and samples. A pure function of the rows and parameters."""
    params = proposer.params
    texts = [[text for text in (row.text_a, row.text_b) if text is not None] for row in rows]
    split = iter(proposer.splitter.split([text for both in texts for text in both]))
    words = [[list(next(split)) for _ in both] for both in texts]
    spots = [
        [
            _Spot(column, index)
            for column, (text, one) in enumerate(zip(own_texts, both, strict=True))
            for index in proposer.replaceable(text, one)
        ]
        for own_texts, both in zip(texts, words, strict=True)
    ]
    found = [_row_candidates(proposer, row, both, own) for row, both, own in zip(rows, words, spots, strict=True)]
    accepted: list[list[Replaced]] = [[] for _ in rows]
    n_a = proposer.n_a_of(rows).tolist()
    pending = [index for index in range(len(rows)) if spots[index] and params.p_t > 0 and n_a[index]]
    done = 0
    for factor in _DRAW_FACTORS:
        drafts = [
            _Draft(row, draw, [list(one) for one in words[row]])
            for row in pending
            for draw in range(n_a[row] * done, n_a[row] * factor)
        ]
        yield from _walk(proposer, found, spots, drafts)
        _accept(found, drafts, accepted, n_a)
        pending = [row for row in pending if len(accepted[row]) < n_a[row]]
        done = factor
    return found, _collect(accepted)


def _row_candidates(
    proposer: Proposer, row: SourceRow, words: Sequence[Sequence[Word]], spots: Sequence[_Spot]
) -> RowCandidates:
    texts = []
    for column, text in enumerate(t for t in (row.text_a, row.text_b) if t is not None):
        base, spans = proposer.base_text(text, words[column])
        sites = tuple(
            Site(*spans[spot.index], words[column][spot.index].text, "mlm", (), ())
            for spot in spots
            if spot.column == column
        )
        texts.append(TextCandidates(base, sites))
    return RowCandidates(row.source_id, texts[0], texts[1] if len(texts) > 1 else None)


def _walk(
    proposer: Proposer, rows: Sequence[RowCandidates], spots: Sequence[Sequence[_Spot]], drafts: Sequence[_Draft]
) -> Steps[None]:
    """Advance all drafts through their words."""
    params = proposer.params
    longest = max((len(spots[draft.row]) for draft in drafts), default=0)
    sources = np.asarray([rows[draft.row].source_id for draft in drafts], np.int64)
    draws = np.asarray([draft.draw for draft in drafts], np.int64)
    for step in range(longest):
        p, pick = uniforms(params.seed, sources, draws, step)
        asking: list[tuple[int, _Spot]] = []
        for number, draft in enumerate(drafts):
            if step >= len(spots[draft.row]) or p[number] > params.p_t:
                continue
            spot = spots[draft.row][step]
            if params.pairs == "both" or spot.column == _column(spots[draft.row], draft.draw):
                asking.append((number, spot))
        found = yield from proposer.rank_steps(
            [drafts[number].words[spot.column] for number, spot in asking],
            [Place(text, spot.index) for text, (_, spot) in enumerate(asking)],
        )
        for (number, spot), proposal in zip(asking, found, strict=True):
            letters = rows[drafts[number].row].letters(step)
            _apply(proposer, drafts[number], spot, step, proposal, float(pick[number]), letters)


def _column(spots: Sequence[_Spot], draw: int) -> int:
    """`pairs = each`: the text that a draw changes, as in `draw_samples`."""
    columns = {spot.column for spot in spots}
    return draw % 2 if len(columns) == 2 else columns.pop()


def _apply(
    proposer: Proposer, draft: _Draft, spot: _Spot, step: int, proposal: Proposal, pick: float, letters: str
) -> None:
    """Replace the word at `spot`, written as `letters` in the text, by the picked candidate."""
    if not proposal.candidates:
        return
    picked = proposal.candidates[int(pick * len(proposal.candidates))]
    (chosen,) = proposer.shown((picked,), letters)
    word = draft.words[spot.column][spot.index]
    if not keeps_word(chosen, word.text, letters, proposer.params.text):
        token_ids = proposer.splitter.pieces_of(chosen)
        draft.words[spot.column][spot.index] = replace(word, text=chosen, piece_ids=token_ids)
        draft.replaced[step] = (chosen, proposal.origin)


def _accept(
    found: Sequence[RowCandidates], drafts: Sequence[_Draft], accepted: Sequence[list[Replaced]], n_a: Sequence[int]
) -> None:
    """Keep each row's first `n_a` draws that differ from its texts and from one another."""
    seen = {row: {_texts(found[row], one) for one in accepted[row]} for row in {draft.row for draft in drafts}}
    for draft in drafts:
        row = found[draft.row]
        texts = _texts(row, draft.replaced)
        if texts != row.texts and texts not in seen[draft.row] and len(accepted[draft.row]) < n_a[draft.row]:
            seen[draft.row].add(texts)
            accepted[draft.row].append(draft.replaced)


def _texts(row: RowCandidates, replaced: Replaced) -> tuple[str, str | None]:
    return spell(row, [(site, word) for site, (word, _) in sorted(replaced.items())]).texts


def _collect(accepted: Sequence[Sequence[Replaced]]) -> Samples:
    """The accepted draws of all rows, in columns."""
    samples = [(row, n, replaced) for row, own in enumerate(accepted) for n, replaced in enumerate(own, start=1)]
    chosen = [(site, *new) for _, _, replaced in samples for site, new in sorted(replaced.items())]
    return Samples(
        row=np.asarray([row for row, _, _ in samples], np.int64),
        n=np.asarray([n for _, n, _ in samples], np.int64),
        offsets=offsets_of(np.asarray([len(replaced) for _, _, replaced in samples], np.int64)),
        site=np.asarray([site for site, _, _ in chosen], np.int64),
        word=np.arange(len(chosen), dtype=np.int64),
        origin=np.asarray([ORIGINS.index(origin) for _, _, origin in chosen], np.int64),
        words=[word for _, word, _ in chosen],
    )
