"""Algorithm 1's draws (arXiv 1909.10351): candidate sets of a shard -> samples, all rows at once with numpy.

For draw d of a row and its word i, (p, pick) = uniforms(seed, source id, d, i); the word is replaced when p <= P_t, by
candidate number floor(pick * |C|). A draw that leaves the text as it is, or that gives a text already drawn, does not
count; the samples n = 1..N_a are the first N_a draws that do. A text that allows fewer gives all it allows: when draws
run dry, the choices left over are listed in order. Words of text_a are numbered first, then those of text_b.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shared.params import AugmentParams
from shared.rng import uniforms

Origin = Literal["mlm", "glove"]
ORIGINS: tuple[Origin, ...] = ("mlm", "glove")
KEPT = -1
"""Choice of a word that stays as it is."""

_DRAW_FACTORS = (1, 3, 12)
"""Rows that lack samples are drawn again with this many times N_a draws, before what is left is listed."""

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Site:
    """A word that may be replaced: code points [start, end) of its text, and its candidates, best first.

    `word` is the word after the tokenizer's normalisation; a candidate equal to it means that it stays. `scores` are
    logits for origin mlm, cosines for glove. A word without candidates keeps itself.
    """

    start: int
    end: int
    word: str
    origin: Origin
    candidates: tuple[str, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class TextCandidates:
    """The text that samples are made from (the original, or its normalised words) and its sites in order."""

    text: str
    sites: tuple[Site, ...]


@dataclass(frozen=True, slots=True)
class RowCandidates:
    """Candidate sets of one source row."""

    source_id: int
    text_a: TextCandidates
    text_b: TextCandidates | None = None

    @property
    def sites(self) -> tuple[Site, ...]:
        """Sites of both texts, text_a's first: a site's index here is its word index."""
        return self.text_a.sites + (self.text_b.sites if self.text_b else ())


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples of a sequence of rows, in columns; sample s replaces the words `[offsets[s], offsets[s + 1])`.

    row, n: (samples,) int64, the row's place in the sequence and 1..N_a, in order. Per replaced word: `site` (index
    among the row's sites), `word` (index into `words`), `origin` (index into ORIGINS).
    """

    row: Ints
    n: Ints
    offsets: Ints
    site: Ints
    word: Ints
    origin: Ints
    words: Sequence[str]

    def __len__(self) -> int:
        return len(self.row)

    def first(self, n_a: int) -> Samples:
        """The samples of n <= `n_a`."""
        kept = self.n <= n_a
        words = np.repeat(kept, np.diff(self.offsets))
        offsets = np.concatenate([[0], np.cumsum(np.diff(self.offsets)[kept])]).astype(np.int64)
        return Samples(
            self.row[kept], self.n[kept], offsets, self.site[words], self.word[words], self.origin[words], self.words
        )

    def replaced_words(self) -> Iterator[list[tuple[int, str]]]:
        """Per sample the (site, new word) pairs."""
        for start, end in zip(self.offsets[:-1].tolist(), self.offsets[1:].tolist(), strict=True):
            yield [(int(self.site[i]), self.words[int(self.word[i])]) for i in range(start, end)]


@dataclass(frozen=True, slots=True)
class _Table:
    """Candidate sets of many rows, flattened. A site's options are the candidates that differ from its word."""

    source_id: Ints
    first_site: Ints
    site_index: Ints
    site_column: Ints
    num_candidates: Ints
    candidate_start: Ints
    choice: Ints
    origin: Ints
    words: list[str]
    has_adjacent_sites: NDArray[np.bool_]


def draw_samples(rows: Sequence[RowCandidates], params: AugmentParams) -> Samples:
    """The samples of `rows`; a pure function of each row and `params`, whatever rows stand beside it."""
    table = _flatten(rows)
    pending = np.flatnonzero(np.diff(table.first_site) > 0) if params.p_t > 0 and params.n_a else np.zeros(0, np.int64)
    drawn: list[tuple[Ints, Ints, Ints, Ints]] = []
    for factor in _DRAW_FACTORS:
        if not len(pending):
            break
        found = _draw(table, rows, pending, params.n_a * factor, params)
        missing = np.flatnonzero(np.bincount(found[0], minlength=len(rows))[pending] < params.n_a)
        lacking = pending[missing] if factor != _DRAW_FACTORS[-1] else np.zeros(0, np.int64)
        complete = ~np.isin(found[0], lacking)
        drawn.append(_select(found, complete))
        if factor == _DRAW_FACTORS[-1]:
            drawn += [_list_choices(table, rows, int(row), found, params) for row in pending[missing]]
        pending = lacking
    return _collect(table, drawn)


def _flatten(rows: Sequence[RowCandidates]) -> _Table:
    words: list[str] = []
    choice: list[int] = []
    first_site, adjacent = [0], list[bool]()
    site_index, column, counts, origins = list[int](), list[int](), list[int](), list[int]()
    for row in rows:
        touching = False
        for number, text in enumerate((row.text_a, row.text_b)):
            last_end = -1
            for site in text.sites if text else ():
                site_index.append(len(site_index) - first_site[-1])
                column.append(number)
                origins.append(ORIGINS.index(site.origin))
                counts.append(len(site.candidates))
                touching |= site.start == last_end
                last_end = site.end
                for candidate in site.candidates:
                    choice.append(KEPT if candidate == site.word else len(words))
                    words.append(candidate)
        first_site.append(len(site_index))
        adjacent.append(touching)
    num_candidates = np.asarray(counts, np.int64)
    starts = np.concatenate([[0], np.cumsum(num_candidates)])[:-1].astype(np.int64)
    return _Table(
        np.asarray([row.source_id for row in rows], np.int64),
        np.asarray(first_site, np.int64),
        np.asarray(site_index, np.int64),
        np.asarray(column, np.int64),
        num_candidates,
        starts,
        np.asarray(choice, np.int64),
        np.asarray(origins, np.int64),
        words,
        np.asarray(adjacent, np.bool_),
    )


def _draw(
    table: _Table, rows: Sequence[RowCandidates], chosen: Ints, num_draws: int, params: AugmentParams
) -> tuple[Ints, Ints, Ints, Ints]:
    """First N_a countable draws of each chosen row: (row, n) per sample, and its choices, ragged (see _pack)."""
    num_sites = np.diff(table.first_site)[chosen]
    # One entry per (row, draw, site), in that order.
    per_row = np.repeat(np.arange(len(chosen)), num_draws)
    sites_of_draw = num_sites[per_row]
    draw_starts = np.concatenate([[0], np.cumsum(sites_of_draw)])
    within = np.arange(draw_starts[-1]) - np.repeat(draw_starts[:-1], sites_of_draw)
    site = np.repeat(table.first_site[chosen][per_row], sites_of_draw) + within
    draw = np.repeat(np.tile(np.arange(num_draws), len(chosen)), sites_of_draw)
    source = np.repeat(table.source_id[chosen][per_row], sites_of_draw)
    p, pick = uniforms(params.seed, source, draw, table.site_index[site])
    count = table.num_candidates[site]
    replaced = (p <= params.p_t) & (count > 0)
    if params.pairs == "each":
        replaced &= table.site_column[site] == _column_of_draw(table, chosen, num_draws, per_row, sites_of_draw)
    place = table.candidate_start[site] + (pick * count).astype(np.int64)
    choice = np.where(replaced, table.choice[np.where(replaced, place, 0)] if len(table.choice) else KEPT, KEPT)
    key = np.where(choice != KEPT, _mix(within.astype(np.uint64), choice.astype(np.uint64)), np.uint64(0))
    draw_key = np.add.reduceat(key, draw_starts[:-1])
    for group in np.flatnonzero(table.has_adjacent_sites[chosen]):
        # Neighbouring words without anything between them can spell one text in two ways: compare the texts.
        span = range(group * num_draws, (group + 1) * num_draws)
        row = rows[int(chosen[group])]
        for index in span:
            words = choice[draw_starts[index] : draw_starts[index + 1]]
            draw_key[index] = _text_key(row, words, table.words)
    is_first = _first_of_key(per_row, draw_key, num_draws)
    countable = is_first & (draw_key != 0)
    rank = np.cumsum(countable.reshape(-1, num_draws), axis=1).reshape(-1)
    kept = np.flatnonzero(countable & (rank <= params.n_a))
    lengths = sites_of_draw[kept]
    entries = _ranges(draw_starts[:-1][kept], lengths)
    return chosen[per_row[kept]], rank[kept], lengths, choice[entries]


def _column_of_draw(table: _Table, chosen: Ints, num_draws: int, per_row: Ints, sites_of_draw: Ints) -> Ints:
    """`pairs = each`: even draws change text_a, odd ones text_b; a row with words in one text only changes that one."""
    has = [
        np.asarray([np.any(table.site_column[table.first_site[r] : table.first_site[r + 1]] == c) for r in chosen])
        for c in (0, 1)
    ]
    parity = np.tile(np.arange(num_draws) % 2, len(chosen))
    column = np.where(has[0] & has[1], 2, np.where(has[1], 1, 0))[per_row]
    return np.repeat(np.where(column == 2, parity, column), sites_of_draw)


def _list_choices(
    table: _Table, rows: Sequence[RowCandidates], row: int, found: tuple[Ints, Ints, Ints, Ints], params: AugmentParams
) -> tuple[Ints, Ints, Ints, Ints]:
    """Choices of a row that its draws did not reach, in counting order, up to N_a samples in all."""
    first, last = int(table.first_site[row]), int(table.first_site[row + 1])
    options: list[list[int]] = []
    for site in range(first, last):
        start, count = int(table.candidate_start[site]), int(table.num_candidates[site])
        distinct = dict.fromkeys(table.choice[start : start + count].tolist())
        stays = [KEPT] if params.p_t < 1.0 or not distinct or params.pairs == "each" else []
        options.append(list(dict.fromkeys(stays + list(distinct))))
    mine = np.flatnonzero(found[0] == row)
    starts = np.concatenate([[0], np.cumsum(found[2])])
    known = [found[3][starts[index] : starts[index + 1]] for index in mine]
    seen = {_text_key(rows[row], choice, table.words) for choice in known} | {0}
    missing = params.n_a - len(known)
    # Every listed choice that is not new repeats one of at most N_a known texts, so this many are enough.
    added: list[Ints] = []
    columns = table.site_column[first:last]
    for choice in _count_up(options, columns if params.pairs == "each" else None, 4 * params.n_a + 8):
        if len(added) == missing:
            break
        key = _text_key(rows[row], choice, table.words)
        if key not in seen:
            seen.add(key)
            added.append(choice)
    n = np.arange(len(known) + 1, len(known) + len(added) + 1)
    lengths = np.full(len(added), last - first, np.int64)
    flat = np.concatenate(added) if added else np.zeros(0, np.int64)
    return np.full(len(added), row, np.int64), n.astype(np.int64), lengths, flat


def _count_up(options: list[list[int]], columns: Ints | None, limit: int) -> Iterator[Ints]:
    """Choice vectors in mixed-radix order, last word fastest; with `columns`, one text's words after the other's."""
    groups = [np.arange(len(options))] if columns is None else [np.flatnonzero(columns == c) for c in (0, 1)]
    for group in groups:
        digits = [0] * len(group)
        for _ in range(limit):
            vector = np.full(len(options), KEPT, np.int64)
            for place, site in enumerate(group):
                vector[site] = options[site][digits[place]]
            yield vector
            place = len(group) - 1
            while place >= 0 and digits[place] + 1 == len(options[group[place]]):
                digits[place] = 0
                place -= 1
            if place < 0:
                break
            digits[place] += 1


def _collect(table: _Table, drawn: Sequence[tuple[Ints, Ints, Ints, Ints]]) -> Samples:
    empty = np.zeros(0, np.int64)
    row, n, lengths, choice = (np.concatenate(parts) for parts in zip(*drawn, strict=True)) if drawn else (empty,) * 4
    starts = np.concatenate([[0], np.cumsum(lengths)])[:-1].astype(np.int64)
    order = np.lexsort((n, row))
    row, n, lengths = row[order], n[order], lengths[order]
    choice = choice[_ranges(starts[order], lengths)]
    site = _ranges(np.zeros(len(row), np.int64), lengths)
    sample = np.repeat(np.arange(len(row)), lengths)
    taken = np.flatnonzero(choice != KEPT)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(sample[taken], minlength=len(row)))]).astype(np.int64)
    origin = table.origin[table.first_site[row[sample[taken]]] + site[taken]] if len(taken) else empty
    return Samples(row, n, offsets, site[taken], choice[taken], origin, table.words)


def _select(found: tuple[Ints, Ints, Ints, Ints], kept: NDArray[np.bool_]) -> tuple[Ints, Ints, Ints, Ints]:
    row, n, lengths, choice = found
    return row[kept], n[kept], lengths[kept], choice[np.repeat(kept, lengths)]


def _first_of_key(group: Ints, key: NDArray[np.uint64], group_size: int) -> NDArray[np.bool_]:
    """Whether an entry is the first of its group with its key; groups are runs of `group_size`."""
    order = np.lexsort((np.arange(len(key)), key, group))
    first = np.ones(len(key), np.bool_)
    first[1:] = (key[order][1:] != key[order][:-1]) | (group[order][1:] != group[order][:-1])
    result = np.empty(len(key), np.bool_)
    result[order] = first
    return result


def _ranges(starts: Ints, lengths: Ints) -> Ints:
    """Concatenated `arange(start, start + length)`."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) - np.repeat(ends - lengths, lengths) + np.repeat(starts, lengths)


def _mix(site: NDArray[np.uint64], choice: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64 of (site, choice): its sum over the sites names a choice vector."""
    with np.errstate(over="ignore"):
        z = (site * np.uint64(0x9E3779B97F4A7C15)) ^ (choice + np.uint64(0xD1B54A32D192ED03))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed


def _text_key(row: RowCandidates, choice: Ints, words: Sequence[str]) -> int:
    """A number for the texts that `choice` spells; 0 when they are the row's own."""
    chosen = [None if one == KEPT else words[one] for one in choice.tolist()]
    num_a = len(row.text_a.sites)
    texts = [spell(row.text_a, chosen[:num_a].__getitem__)]
    if row.text_b is not None:
        texts.append(spell(row.text_b, chosen[num_a:].__getitem__))
    own = [text.text for text in (row.text_a, row.text_b) if text is not None]
    return 0 if texts == own else (hash_text("\x00".join(texts)) or 1)


def hash_text(text: str) -> int:
    """64 bits of sha256: the same in every process, unlike `hash`."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")


def spell(text: TextCandidates, replacement: Callable[[int], str | None]) -> str:
    """The text with `replacement(i)` in place of site i, or the site's own words where that is None."""
    parts, last = [], 0
    for index, site in enumerate(text.sites):
        word = replacement(index)
        if word is not None:
            parts += [text.text[last : site.start], word]
            last = site.end
    return "".join([*parts, text.text[last:]])
