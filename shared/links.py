"""`pairs = same`: a word that occurs in both texts of a pair is replaced by the same candidate everywhere in it.

The first occurrence leads: the others follow its draw and candidates, each in the case of its own letters. This
preserves the relation between the two texts as far as their shared words are concerned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from shared.candidates import Ints, RowCandidates
from shared.choices import KEPT, ChoiceTable
from shared.letters import keeps_word, match_case
from shared.params import AugmentParams


def link_words(table: ChoiceTable, rows: Sequence[RowCandidates], params: AugmentParams) -> ChoiceTable:
    """The table of `rows` in which followers have the `site_index`, `origin` and candidates of their leader."""
    site_index, origin = table.site_index.copy(), table.origin.copy()
    counts, starts = table.num_candidates.copy(), table.candidate_start.copy()
    is_ambiguous = table.is_ambiguous.copy()
    words, known = list(table.words), dict[str, int]()
    added: list[int] = []
    for number, row in enumerate(rows):
        first = int(table.first_site[number])
        for follower, leader in followers(row).items():
            place, lead = first + follower, first + leader
            choices = table.choice[starts[lead] : starts[lead] + counts[lead]].tolist()
            shown = _as_written(choices, words, row, follower, params, known)
            is_ambiguous[number] |= _may_merge(row, follower, [words[one] for one in shown if one != KEPT])
            site_index[place], origin[place] = site_index[lead], origin[lead]
            counts[place], starts[place] = len(shown), len(table.choice) + len(added)
            added += shown
    return replace(
        table,
        site_index=site_index,
        origin=origin,
        num_candidates=counts,
        candidate_start=starts,
        choice=np.concatenate([table.choice, np.asarray(added, np.int64)]),
        words=words,
        is_ambiguous=is_ambiguous,
    )


def followers(row: RowCandidates) -> dict[int, int]:
    """Site index -> index of the row's first site with the same word, for words in both texts."""
    if row.text_b is None:
        return {}
    shared = {site.word for site in row.text_a.sites} & {site.word for site in row.text_b.sites}
    leaders: dict[str, int] = {}
    found: dict[int, int] = {}
    for index, site in enumerate(row.sites):
        if site.word in shared and (leader := leaders.setdefault(site.word, index)) != index:
            found[index] = leader
    return found


def follow(table: ChoiceTable, first: int, choice: Ints) -> Ints:
    """`choice`, the choices of a row whose first site is `first`, with followers set to their leaders' choices."""
    result = choice.copy()
    for place in range(len(choice)):
        leader = int(table.site_index[first + place])
        if leader == place or choice[leader] == KEPT:
            continue
        start, count = int(table.candidate_start[first + leader]), int(table.num_candidates[first + leader])
        picked = int(np.flatnonzero(table.choice[start : start + count] == choice[leader])[0])
        result[place] = table.choice[int(table.candidate_start[first + place]) + picked]
    return result


def _as_written(
    choices: Sequence[int],
    words: list[str],
    row: RowCandidates,
    site: int,
    params: AugmentParams,
    known: dict[str, int],
) -> list[int]:
    """The leader's choices as written at `site`. New words are added to `words` and `known`."""
    letters, word = row.letters(site), row.sites[site].word
    own: dict[str, int] = {}
    shown = []
    for choice in choices:
        # If the leader is kept, so are its followers.
        candidate = "" if choice == KEPT else words[choice]
        written = match_case(candidate, letters) if params.case == "match" else candidate
        if choice == KEPT or keeps_word(written, word, letters, params.text):
            shown.append(KEPT)
            continue
        if written not in own:
            own[written] = choice if written == candidate else known.setdefault(written, len(words))
            if own[written] == len(words):
                words.append(written)
        shown.append(own[written])
    return shown


def _may_merge(row: RowCandidates, index: int, candidates: Sequence[str]) -> bool:
    """Whether a candidate contains the separator between the site and the next one of its text."""
    num_a = len(row.text_a.sites)
    text, place = (row.text_a, index) if index < num_a else (row.text_b, index - num_a)
    assert text is not None
    if place + 1 == len(text.sites):
        return False
    end = text.sites[place].end
    following = text.text[end : end + (end < text.sites[place + 1].start)]
    return any(following in one for one in candidates)
