"""Enumerates a row's choices in counting order, for texts that allow few samples, where random draws repeat."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from shared.candidates import Ints, RowCandidates
from shared.choices import KEPT, Choices, ChoiceTable
from shared.links import follow
from shared.params import AugmentParams
from shared.rendering import spell


def list_choices(table: ChoiceTable, row: RowCandidates, index: int, drawn: Choices, params: AugmentParams) -> Choices:
    """Choices of row `index` that are not among `drawn`, in counting order, until it has N_a samples in total."""
    sites = slice(int(table.first_site[index]), int(table.first_site[index + 1]))
    known = drawn.of_row(index)
    seen = {text_key(row, choice, table.words) for choice in known} | {0}
    columns = table.site_column[sites] if params.pairs == "each" else None
    added: list[Ints] = []
    # A listed choice that adds nothing repeats one of at most N_a known texts, so this many are enough.
    for choice in _count_up(_options(table, sites, params), columns, 4 * params.n_a + 8):
        if len(known) + len(added) == params.n_a:
            break
        if params.pairs == "same":
            choice = follow(table, sites.start, choice)
        key = text_key(row, choice, table.words)
        if key not in seen:
            seen.add(key)
            added.append(choice)
    return Choices(
        row=np.full(len(added), index, np.int64),
        n=np.arange(len(known) + 1, len(known) + len(added) + 1, dtype=np.int64),
        lengths=np.full(len(added), sites.stop - sites.start, np.int64),
        choice=np.concatenate(added) if added else np.zeros(0, np.int64),
    )


def _options(table: ChoiceTable, sites: slice, params: AugmentParams) -> list[list[int]]:
    """The distinct choices at each site. With P_t = 1 every word is replaced, so KEPT is not among them.

    A follower (`pairs = same`) has no choice of its own.
    """
    options = []
    for site in range(sites.start, sites.stop):
        if table.site_index[site] != site - sites.start:
            options.append([KEPT])
            continue
        start, count = int(table.candidate_start[site]), int(table.num_candidates[site])
        distinct = list(dict.fromkeys(table.choice[start : start + count].tolist()))
        may_stay = params.p_t < 1.0 or not distinct or params.pairs == "each"
        options.append(list(dict.fromkeys([KEPT, *distinct] if may_stay else distinct)))
    return options


def _count_up(options: list[list[int]], columns: Ints | None, limit: int) -> Iterator[Ints]:
    """Choices in mixed-radix order, last site fastest. With `columns`, first those of text_a, then those of text_b."""
    groups = [np.arange(len(options))] if columns is None else [np.flatnonzero(columns == c) for c in (0, 1)]
    for group in groups:
        digits = [0] * len(group)
        for _ in range(limit):
            choice = np.full(len(options), KEPT, np.int64)
            for place, site in enumerate(group):
                choice[site] = options[site][digits[place]]
            yield choice
            place = len(group) - 1
            while place >= 0 and digits[place] + 1 == len(options[group[place]]):
                digits[place] = 0
                place -= 1
            if place < 0:
                break
            digits[place] += 1


def text_key(row: RowCandidates, choice: Ints, words: Sequence[str]) -> int:
    """64 bits that identify the texts resulting from `choice`; 0 if they equal the row's own."""
    chosen = [(site, words[word]) for site, word in enumerate(choice.tolist()) if word != KEPT]
    texts = spell(row, chosen).texts
    if texts == row.texts:
        return 0
    joined = "\x00".join(text for text in texts if text is not None)
    # sha256, because `hash` differs from process to process.
    return int.from_bytes(hashlib.sha256(joined.encode("utf-8", "surrogatepass")).digest()[:8], "big") or 1
