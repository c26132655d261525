"""Algorithm 1's draws (arXiv 1909.10351): candidate sets of a shard -> samples, all rows at once with numpy.

For draw d of a row and its word i, (p, pick) = uniforms(seed, source id, d, i); the word is replaced when p <= P_t, by
candidate number floor(pick * |C|). Draws that leave the text unchanged or repeat an earlier text do not count; the
samples n = 1..N_a are the first N_a draws that do. A text that allows fewer than N_a samples gives all of them: once
the draws are exhausted, the remaining choices are listed in order. Words of text_a are numbered first, then text_b's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shared.candidates import Ints, RowCandidates, Samples, concatenate, lengths_of, offsets_of, ranges
from shared.choices import KEPT, Choices, ChoiceTable
from shared.links import link_words
from shared.listing import list_choices, text_key
from shared.params import AugmentParams
from shared.rng import uniforms
from shared.strings import used_only

_DRAW_FACTORS = (1, 3, 12)
"""Rows that still lack samples are redrawn with this many times N_a draws, before the rest is enumerated."""
MAX_ENTRIES = 400_000
"""(row, draw, word) entries drawn at a time. An entry takes 250 to 480 bytes: 200 MB at most."""


def draw_samples(
    rows: Sequence[RowCandidates], params: AugmentParams, n_a: Ints | None = None, table: ChoiceTable | None = None
) -> Samples:
    """The samples of `rows`. A row's samples depend only on the row, `params` and its N_a, not on the other rows.

    n_a: (rows,) int64, N_a of each row; None: from `params`. table: `ChoiceTable.of(rows, params.text)`, for callers
    that draw from the same rows more than once.

    Memory beyond the samples themselves is bounded, whatever N_a is: rows are drawn in blocks, and the draws of a row
    in parts.
    """
    table = table or ChoiceTable.of(rows, params.text)
    if params.pairs == "same":
        table = link_words(table, rows, params)
    num_sites = lengths_of(table.first_site)
    drawable = (num_sites > 0) & (params.p_t > 0)
    parts = []
    for chosen, same in _by_n_a(drawable, params, n_a):
        for block in _blocks(chosen, num_sites[chosen] * same.n_a):
            parts.append(_collect(table, _draw_block(table, rows, block, same)))
    samples = concatenate(parts, table.words)
    if len(parts) > 1:
        samples = samples.in_order()
    words, word = used_only(table.words, samples.word)
    return replace(samples, words=words, word=word)


def _by_n_a(
    drawable: NDArray[np.bool_], params: AugmentParams, n_a: Ints | None
) -> Iterator[tuple[Ints, AugmentParams]]:
    """The drawable rows grouped by N_a, with parameters that have this N_a."""
    if n_a is None:
        if params.n_a > 0:
            yield np.flatnonzero(drawable), params
        return
    for number in np.unique(n_a[drawable & (n_a > 0)]).tolist():
        yield np.flatnonzero(drawable & (n_a == number)), params.model_copy(update={"n_a": number})


def _draw_block(table: ChoiceTable, rows: Sequence[RowCandidates], pending: Ints, params: AugmentParams) -> Choices:
    """The samples of the rows `pending`, unordered."""
    drawn: list[Choices] = []
    for factor in _DRAW_FACTORS:
        if not len(pending):
            break
        found = _draw_in_parts(table, rows, pending, params.n_a * factor, params)
        lacking = pending[np.bincount(found.row, minlength=len(rows))[pending] < params.n_a]
        if factor == _DRAW_FACTORS[-1]:
            drawn.append(found)
            drawn += [list_choices(table, rows[row], row, found, params) for row in lacking.tolist()]
        else:
            drawn.append(found.select(~np.isin(found.row, lacking)) if len(lacking) else found)
        pending = lacking
    return Choices.concatenate(drawn)


def _draw_in_parts(
    table: ChoiceTable, rows: Sequence[RowCandidates], chosen: Ints, num_draws: int, params: AugmentParams
) -> Choices:
    """The first N_a valid draws among `num_draws`, for each of the `chosen` rows."""
    num_sites = lengths_of(table.first_site)[chosen]
    parts: list[Choices] = []
    for block in _blocks(chosen, num_sites * num_draws):
        sites = int(lengths_of(table.first_site)[block[0]])
        if len(block) > 1 or sites * num_draws <= MAX_ENTRIES:
            grid = _Grid.of(table, block, 0, num_draws)
            parts.append(_draw(table, rows, grid, params, _Seen.nothing()))
            continue
        # A single row with so many words or draws that it is drawn in parts.
        seen = _Seen.nothing()
        step = max(MAX_ENTRIES // sites, 1)
        for first in range(0, num_draws, step):
            if seen.count == params.n_a:
                break
            grid = _Grid.of(table, block, first, min(step, num_draws - first))
            parts.append(_draw(table, rows, grid, params, seen))
    return Choices.concatenate(parts)


def _blocks(rows: Ints, entries: Ints) -> list[Ints]:
    """`rows` in consecutive blocks of at most MAX_ENTRIES `entries` (one number per row), or of a single row."""
    blocks: list[Ints] = []
    first, total = 0, 0
    for index, count in enumerate(entries.tolist()):
        if index > first and total + count > MAX_ENTRIES:
            blocks.append(rows[first:index])
            first, total = index, 0
        total += count
    return [*blocks, rows[first:]] if len(rows) else blocks


@dataclass(slots=True)
class _Seen:
    """Results of earlier parts of one row's draws: the keys of their texts, and the number of samples."""

    keys: NDArray[np.uint64]
    count: int

    @classmethod
    def nothing(cls) -> _Seen:
        return cls(np.zeros(0, np.uint64), 0)


@dataclass(frozen=True, slots=True)
class _Grid:
    """One entry per (row, draw, site), in that order, for the rows `chosen` and `num_draws` draws of each from `first`.

    Per (row, draw): `group`, the row's index in `chosen`; `draw`; `num_sites`. `starts` has the first entry of each
    (row, draw), and the total at its end.
    """

    chosen: Ints
    num_draws: int
    group: Ints
    draw: Ints
    num_sites: Ints
    starts: Ints

    @classmethod
    def of(cls, table: ChoiceTable, chosen: Ints, first: int, num_draws: int) -> _Grid:
        group = np.repeat(np.arange(len(chosen)), num_draws)
        num_sites = (table.first_site[chosen + 1] - table.first_site[chosen])[group]
        draw = np.tile(np.arange(first, first + num_draws), len(chosen))
        return cls(chosen, num_draws, group, draw, num_sites, offsets_of(num_sites))

    def per_entry(self, values: Ints) -> Ints:
        """(row, draw) values, repeated for each entry."""
        return np.repeat(values, self.num_sites)


def _draw(
    table: ChoiceTable, rows: Sequence[RowCandidates], grid: _Grid, params: AugmentParams, seen: _Seen
) -> Choices:
    """The first N_a valid draws of each row. `seen`: earlier draws of the grid's only row; is updated."""
    row = grid.chosen[grid.group]
    within = np.arange(grid.starts[-1]) - grid.per_entry(grid.starts[:-1])
    site = grid.per_entry(table.first_site[row]) + within
    source, draw = grid.per_entry(table.source_id[row]), grid.per_entry(grid.draw)
    p, pick = uniforms(params.seed, source, draw, table.site_index[site])
    count = table.num_candidates[site]
    replaced = (p <= params.p_t) & (count > 0)
    if params.pairs == "each":
        replaced &= table.site_column[site] == grid.per_entry(_column_of_draw(table, grid))
    place = table.candidate_start[site] + (pick * count).astype(np.int64)
    choice = np.where(replaced, table.choice[np.where(replaced, place, 0)] if len(table.choice) else KEPT, KEPT)
    keys = _keys(table, rows, grid, within, choice)
    is_first = _first_of_key(grid, keys)
    if len(seen.keys):
        is_first &= ~np.isin(keys, seen.keys)
    rank = seen.count + np.cumsum(is_first.reshape(-1, grid.num_draws), axis=1, dtype=np.int64).reshape(-1)
    kept = np.flatnonzero(is_first & (rank <= params.n_a))
    seen.keys, seen.count = np.concatenate([seen.keys, keys[kept]]), seen.count + len(kept)
    lengths = grid.num_sites[kept]
    entries = ranges(grid.starts[:-1][kept], lengths)
    return Choices(row=row[kept], n=rank[kept], lengths=lengths, choice=choice[entries])


def _column_of_draw(table: ChoiceTable, grid: _Grid) -> Ints:
    """`pairs = each`: even draws change text_a, odd draws text_b, if the row has sites in both."""
    has_a, has_b = (
        np.asarray(
            [np.any(table.site_column[table.first_site[r] : table.first_site[r + 1]] == c) for r in grid.chosen]
        )[grid.group]
        for c in (0, 1)
    )
    return np.where(has_a & has_b, grid.draw % 2, np.where(has_b, 1, 0))


def _keys(
    table: ChoiceTable, rows: Sequence[RowCandidates], grid: _Grid, within: Ints, choice: Ints
) -> NDArray[np.uint64]:
    """Per (row, draw), 64 bits that identify the resulting texts; 0 if they equal the row's own."""
    mixed = np.where(choice != KEPT, _mix(within.astype(np.uint64), choice.astype(np.uint64)), np.uint64(0))
    keys: NDArray[np.uint64] = np.add.reduceat(mixed, grid.starts[:-1])
    for group in np.flatnonzero(table.is_ambiguous[grid.chosen]):
        # Two choices can give the same text when words have no separator, or new words contain it.
        row = rows[int(grid.chosen[group])]
        for index in range(group * grid.num_draws, (group + 1) * grid.num_draws):
            keys[index] = text_key(row, choice[grid.starts[index] : grid.starts[index + 1]], table.words)
    return keys


def _first_of_key(grid: _Grid, key: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether a draw is the first of its row with its key. Draws with key 0 never are."""
    order = np.lexsort((np.arange(len(key)), key, grid.group))
    first = np.ones(len(key), np.bool_)
    first[1:] = (key[order][1:] != key[order][:-1]) | (grid.group[order][1:] != grid.group[order][:-1])
    result = np.empty(len(key), np.bool_)
    result[order] = first
    result[key == 0] = False
    return result


def _mix(site: NDArray[np.uint64], choice: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64 of (site, choice). The sum over a row's sites identifies its choices."""
    with np.errstate(over="ignore"):
        z = (site * np.uint64(0x9E3779B97F4A7C15)) ^ (choice + np.uint64(0xD1B54A32D192ED03))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed


def _collect(table: ChoiceTable, drawn: Choices) -> Samples:
    """Samples sorted by (row, n), with only their replaced words."""
    starts = offsets_of(drawn.lengths)[:-1]
    order = np.lexsort((drawn.n, drawn.row))
    row, n, lengths = drawn.row[order], drawn.n[order], drawn.lengths[order]
    choice = drawn.choice[ranges(starts[order], lengths)]
    site = ranges(np.zeros(len(row), np.int64), lengths)
    sample = np.repeat(np.arange(len(row)), lengths)
    taken = np.flatnonzero(choice != KEPT)
    return Samples(
        row=row,
        n=n,
        offsets=offsets_of(np.bincount(sample[taken], minlength=len(row))),
        site=site[taken],
        word=choice[taken],
        origin=table.origin[table.first_site[row[sample[taken]]] + site[taken]],
        words=table.words,
    )
