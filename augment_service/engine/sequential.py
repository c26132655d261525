"""Conditioning `sequential`: Algorithm 1 as printed, where candidates come from the sample as replaced so far.

All (row, draw) pairs of a call walk through their words in lock-step: step i masks word i of every text that has one,
so that the model still sees full batches. Draws use the same counters as `draw_samples`; which words are replaced is
thus the same under both conditionings, and only drawn words ask the model. Gave up: listing what is left when draws
run dry, since the candidate sets differ from draw to draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from augment_service.engine.inputs import Place
from augment_service.engine.proposer import Proposer, Steps
from augment_service.engine.words import Word, may_replace
from shared.inputs.rows import SourceRow
from shared.rng import uniforms
from shared.sampling import ORIGINS, RowCandidates, Samples, Site, TextCandidates, spell

_DRAW_FACTORS = (1, 3)


@dataclass(slots=True)
class _Draft:
    """One draw of one row in the making: current words per text, and what was replaced so far."""

    row: int
    draw: int
    words: list[list[Word]]
    replaced: dict[int, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Place:
    """A word that may be replaced: its text (0 or 1) and index there."""

    column: int
    index: int


def sequential_steps(engine: Proposer, rows: Sequence[SourceRow]) -> Steps[tuple[list[RowCandidates], Samples]]:
    """Base texts with their (candidate-less) sites, and samples. A pure function of the rows and parameters."""
    texts = [[text for text in (row.text_a, row.text_b) if text is not None] for row in rows]
    split = iter(engine.splitter.split([text for both in texts for text in both]))
    words = [[list(next(split)) for _ in both] for both in texts]
    places = [
        [
            _Place(column, index)
            for column, one in enumerate(both)
            for index, word in enumerate(one)
            if may_replace(word, engine.params.words)
        ]
        for both in words
    ]
    found = [_row_candidates(engine, row, both, place) for row, both, place in zip(rows, words, places, strict=True)]
    accepted: list[list[dict[int, tuple[str, str]]]] = [[] for _ in rows]
    pending = [index for index in range(len(rows)) if places[index] and engine.params.p_t > 0 and engine.params.n_a]
    first = 0
    for factor in _DRAW_FACTORS:
        last = engine.params.n_a * factor
        drafts = [
            _Draft(row, draw, [list(one) for one in words[row]]) for row in pending for draw in range(first, last)
        ]
        yield from _walk(engine, rows, places, drafts)
        _accept(engine, found, drafts, accepted)
        pending = [row for row in pending if len(accepted[row]) < engine.params.n_a]
        first = last
    return found, _collect(accepted)


def _row_candidates(engine: Proposer, row: SourceRow, words: list[list[Word]], places: list[_Place]) -> RowCandidates:
    texts = []
    for column, text in enumerate(t for t in (row.text_a, row.text_b) if t is not None):
        base, spans = engine.base_text(text, words[column])
        sites = tuple(
            Site(*spans[place.index], words[column][place.index].text, "mlm", (), ())
            for place in places
            if place.column == column
        )
        texts.append(TextCandidates(base, sites))
    return RowCandidates(row.source_id, texts[0], texts[1] if len(texts) > 1 else None)


def _walk(engine: Proposer, rows: Sequence[SourceRow], places: list[list[_Place]], drafts: list[_Draft]) -> Steps[None]:
    params = engine.params
    longest = max((len(places[draft.row]) for draft in drafts), default=0)
    sources = np.asarray([rows[draft.row].source_id for draft in drafts], np.int64)
    draws = np.asarray([draft.draw for draft in drafts], np.int64)
    for step in range(longest):
        p, pick = uniforms(params.seed, sources, draws, step)
        asking = []
        for number, draft in enumerate(drafts):
            if step >= len(places[draft.row]) or p[number] > params.p_t:
                continue
            place = places[draft.row][step]
            if params.pairs == "each" and place.column != _column(places[draft.row], draft.draw):
                continue
            asking.append((number, place))
        found = yield from engine.rank_steps(
            [drafts[number].words[place.column] for number, place in asking],
            [Place(text, place.index) for text, (_, place) in enumerate(asking)],
        )
        for (number, place), proposal in zip(asking, found, strict=True):
            _apply(engine, drafts[number], place, step, proposal.candidates, proposal.origin, float(pick[number]))


def _word(draft: _Draft, place: _Place) -> Word:
    return draft.words[place.column][place.index]


def _column(places: list[_Place], draw: int) -> int:
    columns = {place.column for place in places}
    return draw % 2 if len(columns) == 2 else columns.pop()


def _apply(
    engine: Proposer, draft: _Draft, place: _Place, step: int, candidates: Sequence[str], origin: str, pick: float
) -> None:
    if not candidates:
        return
    chosen = candidates[int(pick * len(candidates))]
    word = _word(draft, place)
    if chosen != word.text:
        draft.words[place.column][place.index] = replace(word, text=chosen, piece_ids=engine.splitter.pieces_of(chosen))
        draft.replaced[step] = (chosen, origin)


def _accept(
    engine: Proposer,
    found: list[RowCandidates],
    drafts: list[_Draft],
    accepted: list[list[dict[int, tuple[str, str]]]],
) -> None:
    """Keep each row's first N_a draws that differ from its texts and from each other."""
    seen = {row: {_spelled(found[row], one) for one in accepted[row]} for row in {draft.row for draft in drafts}}
    for draft in drafts:
        row = found[draft.row]
        text = _spelled(row, draft.replaced)
        own = (row.text_a.text, row.text_b.text if row.text_b else "")
        if text != own and text not in seen[draft.row] and len(accepted[draft.row]) < engine.params.n_a:
            seen[draft.row].add(text)
            accepted[draft.row].append(draft.replaced)


def _spelled(row: RowCandidates, replaced: dict[int, tuple[str, str]]) -> tuple[str, str]:
    num_a = len(row.text_a.sites)
    text_a = spell(row.text_a, lambda i: replaced.get(i, (None,))[0])
    return text_a, spell(row.text_b, lambda i: replaced.get(num_a + i, (None,))[0]) if row.text_b else ""


def _collect(accepted: list[list[dict[int, tuple[str, str]]]]) -> Samples:
    row, n, counts, sites, words, origins = [], [], [], [], [], []
    for number, drafts in enumerate(accepted):
        for place, replaced in enumerate(drafts, start=1):
            row.append(number)
            n.append(place)
            counts.append(len(replaced))
            for site, (word, origin) in sorted(replaced.items()):
                sites.append(site)
                words.append(word)
                origins.append(ORIGINS.index("glove" if origin == "glove" else "mlm"))
    as_ints = [np.asarray(values, np.int64) for values in (row, n, sites, range(len(words)), origins)]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Samples(as_ints[0], as_ints[1], offsets, as_ints[2], as_ints[3], as_ints[4], words)
