"""`--pairs same` against a slow restatement: one draw, one row, one word at a time."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.candidates import RowCandidates, Site, TextCandidates
from shared.letters import keeps_word, match_case
from shared.params import AugmentParams
from shared.rendering import spell
from shared.rng import uniforms
from shared.sampling import draw_samples

LEMMAS = ("man", "dog", "film", "café", "ok")
NEW = ("woman", "cat", "Paris", "USA", "man", "Dog", "ok")


@st.composite
def texts(draw: st.DrawFn) -> TextCandidates:
    """Words in any case, some of them sites; `word` is in lower case, as an uncased model has it."""
    text, sites = "", []
    for number in range(draw(st.integers(0, 5))):
        word = draw(st.sampled_from(LEMMAS))
        letters = draw(st.sampled_from([word, word.title(), word.upper()]))
        text += " " * (number > 0)
        if draw(st.booleans()):
            names = tuple(dict.fromkeys(draw(st.lists(st.sampled_from(NEW), max_size=4))))
            shown = tuple(dict.fromkeys(match_case(name, letters) for name in names))
            sites.append(Site(len(text), len(text) + len(letters), word, "mlm", shown, (0.0,) * len(shown)))
        text += letters
    return TextCandidates(text, tuple(sites))


@st.composite
def pairs(draw: st.DrawFn) -> RowCandidates:
    return RowCandidates(draw(st.integers(0, 2**40)), draw(texts()), draw(texts()))


PARAMS = st.builds(
    AugmentParams,
    n_a=st.integers(1, 8),
    p_t=st.sampled_from([0.2, 0.5, 1.0]),
    seed=st.integers(0, 2**63 - 1),
    pairs=st.just("same"),
    text=st.sampled_from(["preserve", "reference"]),
)


def leader_of(row: RowCandidates, index: int) -> int:
    """The first site with the same word, if both texts have one with that word; otherwise the site itself."""
    assert row.text_b is not None
    word = row.sites[index].word
    if any(all(site.word != word for site in text.sites) for text in (row.text_a, row.text_b)):
        return index
    return next(place for place, site in enumerate(row.sites) if site.word == word)


def written(row: RowCandidates, index: int, candidate: str, params: AugmentParams) -> str:
    """The leader's candidate at a site; the word as it is if choosing the candidate keeps it."""
    leader = leader_of(row, index)
    if keeps_word(candidate, row.sites[leader].word, row.letters(leader), params.text):
        return row.letters(index)
    if leader == index:
        return candidate
    shown = match_case(candidate, row.letters(index)) if params.case == "match" else candidate
    return row.letters(index) if keeps_word(shown, row.sites[index].word, row.letters(index), params.text) else shown


def texts_of(row: RowCandidates, words: list[str]) -> tuple[str, str | None]:
    return spell(row, [(i, word) for i, word in enumerate(words) if word != row.letters(i)]).texts


def one_draw(row: RowCandidates, draw: int, params: AugmentParams) -> tuple[str, str | None]:
    """The texts of one draw, by the definition of Algorithm 1's line 8."""
    words = []
    for index in range(len(row.sites)):
        leader = leader_of(row, index)
        candidates = row.sites[leader].candidates
        p, pick = (float(one) for one in uniforms(params.seed, row.source_id, draw, leader))
        replaced = p <= params.p_t and candidates
        chosen = candidates[int(pick * len(candidates))] if replaced else ""
        words.append(written(row, index, chosen, params) if replaced else row.letters(index))
    return texts_of(row, words)


def all_texts(row: RowCandidates, params: AugmentParams) -> set[tuple[str, str | None]]:
    leaders = sorted({leader_of(row, index) for index in range(len(row.sites))})
    options: list[list[str | None]] = []
    for leader in leaders:
        candidates = row.sites[leader].candidates
        options.append([*candidates] if candidates and params.p_t == 1 else [None, *candidates])
    found = set()
    for chosen in itertools.product(*options):
        by_leader = dict(zip(leaders, chosen, strict=True))
        words = []
        for index in range(len(row.sites)):
            one = by_leader[leader_of(row, index)]
            words.append(row.letters(index) if one is None else written(row, index, one, params))
        found.add(texts_of(row, words))
    return found - {row.texts}


@settings(max_examples=300, deadline=None)
@given(pairs(), PARAMS)
def test_samples_are_those_of_the_slow_restatement(row: RowCandidates, params: AugmentParams) -> None:
    if params.text == "reference":
        params = params.model_copy(update={"case": "keep"})
    samples = draw_samples([row], params)
    found = [spell(row, replaced).texts for replaced in samples.replaced_words()]
    expected: list[tuple[str, str | None]] = []
    for draw in range(12 * params.n_a):
        one = one_draw(row, draw, params)
        if one != row.texts and one not in expected:
            expected.append(one)
    allowed = all_texts(row, params)
    drawn = expected[: params.n_a]
    assert found[: len(drawn)] == drawn
    assert len(found) == min(params.n_a, len(allowed))
    assert set(found) <= allowed


def test_a_shared_word_gets_the_same_candidate_in_the_case_of_each_place() -> None:
    def site(start: int, word: str, *candidates: str) -> Site:
        return Site(start, start + len(word), word.lower(), "mlm", candidates, (0.0,) * len(candidates))

    row = RowCandidates(
        0,
        TextCandidates("Dog and cat", (site(0, "Dog", "Wolf", "Fox"), site(8, "cat", "mouse"))),
        TextCandidates("the dog ran", (site(4, "dog", "child"),)),
    )
    params = AugmentParams(n_a=20, p_t=0.5, pairs="same")
    found = {spell(row, replaced).texts for replaced in draw_samples([row], params).replaced_words()}
    assert found == {
        (f"{one} and {cat}", f"the {one.lower()} ran")
        for one, cat in itertools.product(("Wolf", "Fox", "Dog"), ("mouse", "cat"))
    } - {row.texts}
    # A single text, and a pair without a common word, are as with `both`.
    alone = replace(row, text_b=None)
    both = params.model_copy(update={"pairs": "both"})
    assert [*draw_samples([alone], params).replaced_words()] == [*draw_samples([alone], both).replaced_words()]


def test_sequential_is_refused_with_the_mend() -> None:
    with pytest.raises(ValidationError, match="needs --conditioning original"):
        AugmentParams(pairs="same", conditioning="sequential")
