"""Algorithm 1's draws, as properties over arbitrary candidate sets."""

from __future__ import annotations

import itertools
import subprocess
import sys
import unicodedata
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import rendering, sampling
from shared.candidates import RowCandidates, Site, TextCandidates
from shared.errors import ShardSizeError
from shared.letters import fold
from shared.params import AugmentParams
from shared.rendering import render_rows, render_samples, spell
from shared.sampling import draw_samples
from tests.support.command import ROOT

WORDS = st.text("abcdeé漢😀 ", min_size=1, max_size=4)


@st.composite
def texts(draw: st.DrawFn) -> TextCandidates:
    """A text with sites anywhere in it, also directly after one another."""
    parts = draw(st.lists(st.tuples(st.text("xyz, 😀", max_size=3), WORDS, st.booleans()), max_size=5))
    text, sites = "", []
    for between, word, is_site in parts:
        text += between
        if is_site:
            candidates = tuple(dict.fromkeys(draw(st.lists(st.one_of(WORDS, st.just(word)), max_size=4))))
            origin = draw(st.sampled_from(["mlm", "glove"]))
            sites.append(Site(len(text), len(text) + len(word), word, origin, candidates, (0.0,) * len(candidates)))  # type: ignore[arg-type]
        text += word
    return TextCandidates(text, tuple(sites))


@st.composite
def row_lists(draw: st.DrawFn) -> list[RowCandidates]:
    pairs = draw(st.lists(st.tuples(texts(), st.none() | texts()), min_size=1, max_size=5))
    return [RowCandidates(number, text_a, text_b) for number, (text_a, text_b) in enumerate(pairs)]


PARAMS = st.builds(
    AugmentParams,
    n_a=st.integers(0, 12),
    p_t=st.sampled_from([0.0, 0.2, 0.4, 1.0]),
    seed=st.integers(0, 2**63 - 1),
    pairs=st.sampled_from(["both", "each", "same"]),
)


def sampled_texts(rows: list[RowCandidates], params: AugmentParams) -> list[list[tuple[str, str | None]]]:
    """Texts of each row's samples."""
    samples = draw_samples(rows, params)
    found: list[list[tuple[str, str | None]]] = [[] for _ in rows]
    for row, replaced in zip(samples.row.tolist(), samples.replaced_words(), strict=True):
        found[row].append(spell(rows[row], replaced).texts)
    return found


def has_neighbouring_sites(row: RowCandidates) -> bool:
    """Whether two sites touch: two choices may then give the same text."""
    sites = [text.sites for text in (row.text_a, row.text_b) if text]
    return any(a.end == b.start for one in sites for a, b in itertools.pairwise(one))


def possible(row: RowCandidates, params: AugmentParams) -> int:
    """How many different texts the row's candidate sets allow, not counting the row's own."""
    combinations: list[dict[int, str]] = [{}]
    for index, site in enumerate(row.sites):
        options = {None if one == site.word else one for one in site.candidates}
        if params.p_t < 1.0 or not options or params.pairs == "each":
            options.add(None)
        combinations = [one if option is None else one | {index: option} for one in combinations for option in options]
    num_a, seen = len(row.text_a.sites), set()
    for chosen in combinations:
        if params.pairs == "each" and len({index >= num_a for index in chosen}) > 1:
            continue
        seen.add(spell(row, list(chosen.items())).texts)
    return len(seen - {row.texts})


@settings(max_examples=200, deadline=None)
@given(row_lists(), PARAMS)
def test_samples_are_unique_differ_from_their_source_and_are_numbered(
    rows: list[RowCandidates], params: AugmentParams
) -> None:
    samples = draw_samples(rows, params)
    for row, found in zip(rows, sampled_texts(rows, params), strict=True):
        assert len(set(found)) == len(found) <= params.n_a
        assert row.texts not in found
        assert samples.n[samples.row == row.source_id].tolist() == list(range(1, len(found) + 1))


@settings(max_examples=200, deadline=None)
@given(row_lists(), PARAMS.filter(lambda params: params.p_t > 0 and params.pairs == "both"))
def test_a_text_that_allows_fewer_samples_gives_all_it_allows(rows: list[RowCandidates], params: AugmentParams) -> None:
    for row, found in zip(rows, sampled_texts(rows, params), strict=True):
        if has_neighbouring_sites(row):
            continue
        assert len(found) == min(params.n_a, possible(row, params))


@settings(max_examples=100, deadline=None)
@given(row_lists(), PARAMS, st.data())
def test_a_row_with_its_own_n_a_has_the_samples_of_that_n_a(
    rows: list[RowCandidates], params: AugmentParams, data: st.DataObject
) -> None:
    n_a = data.draw(st.lists(st.integers(0, 6), min_size=len(rows), max_size=len(rows)))
    samples = draw_samples(rows, params, np.asarray(n_a, np.int64))
    found: list[list[tuple[str, str | None]]] = [[] for _ in rows]
    for row, replaced in zip(samples.row.tolist(), samples.replaced_words(), strict=True):
        found[row].append(spell(rows[row], replaced).texts)
    alone = [sampled_texts([row], params.model_copy(update={"n_a": n})) for row, n in zip(rows, n_a, strict=True)]
    assert found == [one for (one,) in alone]
    assert samples.row.tolist() == sorted(samples.row.tolist())


@settings(max_examples=100, deadline=None)
@given(row_lists(), PARAMS)
def test_samples_of_a_row_do_not_depend_on_the_other_rows_or_their_order(
    rows: list[RowCandidates], params: AugmentParams
) -> None:
    together = sampled_texts(rows, params)
    assert [sampled_texts([row], params)[0] for row in rows] == together
    assert sampled_texts(rows[::-1], params) == together[::-1]


@settings(max_examples=100, deadline=None)
@given(row_lists(), PARAMS)
def test_replaced_spans_index_the_samples_own_text(rows: list[RowCandidates], params: AugmentParams) -> None:
    samples = draw_samples(rows, params)
    rendered = render_samples(rows, samples)
    expected = [pair for found in sampled_texts(rows, params) for pair in found]
    assert list(zip(rendered.text_a.to_pylist(), rendered.text_b.to_pylist(), strict=True)) == expected
    for (text_a, text_b), replaced in zip(expected, rendered.replaced.to_pylist(), strict=True):
        for one in replaced:
            text = text_a if one["column"] == "text_a" else text_b
            assert text is not None
            assert text[one["start"] : one["end"]] == one["candidate"]


@settings(max_examples=100, deadline=None)
@given(row_lists(), PARAMS)
def test_single_rows_and_whole_shards_are_rendered_alike(rows: list[RowCandidates], params: AugmentParams) -> None:
    rendered = render_samples(rows, samples := draw_samples(rows, params))
    columns = (samples.n.tolist(), *(one.to_pylist() for one in astuple(rendered)))
    expected = [
        {"n": n, "text_a": text_a, "text_b": text_b, "replaced": replaced}
        for n, text_a, text_b, replaced in zip(*columns, strict=True)
    ]
    assert [one for own in render_rows(rows, samples) for one in own] == expected


def test_the_threshold_decides_how_many_words_change() -> None:
    candidates = tuple(f"c{index}" for index in range(15))
    sites = tuple(Site(2 * index, 2 * index + 1, "w", "mlm", candidates, (0.0,) * 15) for index in range(12))
    rows = [RowCandidates(number, TextCandidates("w " * 12, sites)) for number in range(400)]
    for p_t in (0.1, 0.4, 1.0):
        samples = draw_samples(rows, AugmentParams(p_t=p_t, n_a=20))
        share = len(samples.word) / (len(samples) * 12)
        # A draw without any replacement does not count, which lifts the share a little where p_t is small.
        expected = p_t / (1 - (1 - p_t) ** 12)
        assert abs(share - expected) < 0.01
        counts = np.bincount(samples.word % 15, minlength=15) / len(samples.word)
        assert np.abs(counts - 1 / 15).max() < 0.006
    assert len(draw_samples(rows, AugmentParams(p_t=0.0))) == 0


def test_choosing_the_word_itself_leaves_it_unchanged() -> None:
    row = RowCandidates(0, TextCandidates("good", (Site(0, 4, "good", "mlm", ("good", "bad"), (1.0, 0.5)),)))
    assert sampled_texts([row], AugmentParams(n_a=5, p_t=1.0)) == [[("bad", None)]]


# Letters, case and separators in which different choices might meet in one text.
_PIECES = st.text("aAé-' ", min_size=1, max_size=3).map(lambda one: unicodedata.normalize("NFC", one))
_SEPARATORS = st.sampled_from(["", " ", "-", "--", "'", ", "])


@st.composite
def confusable_texts(draw: st.DrawFn) -> TextCandidates:
    """A text whose candidates contain what separates its words, its words in another case, accented, decomposed."""
    text, sites = draw(_SEPARATORS), []
    for letters, after in draw(st.lists(st.tuples(_PIECES, _SEPARATORS), min_size=1, max_size=4)):
        letters = draw(st.sampled_from([letters, unicodedata.normalize("NFD", letters)]))
        word = unicodedata.normalize("NFC", letters).lower().replace("é", "e")
        variants = st.sampled_from([letters, word, letters.upper(), unicodedata.normalize("NFC", letters)])
        candidates = tuple(draw(st.lists(st.one_of(_PIECES, variants), max_size=4)))
        sites.append(Site(len(text), len(text) + len(letters), word, "glove", candidates, (0.0,) * len(candidates)))
        text += letters + after
    return TextCandidates(text, tuple(sites))


@settings(max_examples=500, deadline=None)
@given(st.lists(confusable_texts(), min_size=1, max_size=3), PARAMS)
def test_no_sample_repeats_another_or_its_source(texts: list[TextCandidates], params: AugmentParams) -> None:
    rows = [RowCandidates(number, text) for number, text in enumerate(texts)]
    samples = draw_samples(rows, params)
    rendered = render_samples(rows, samples)
    for number, row in enumerate(rows):
        mine = np.flatnonzero(samples.row == number)
        found = rendered.text_a.take(mine).to_pylist()
        assert len(set(found)) == len(found)
        assert row.text_a.text not in found
    for number, replaced in zip(samples.row.tolist(), samples.replaced_words(), strict=True):
        for site, new in replaced:
            assert fold(new) != fold(rows[number].letters(site)), "the word itself is not a replacement"


def test_an_accented_form_of_the_word_keeps_it() -> None:
    site = Site(4, 11, "citroen", "glove", ("citroën", "CITROËN", "Citroën", "peugeot"), (0.0,) * 4)
    row = RowCandidates(0, TextCandidates("the citroën runs", (site,)))
    assert sampled_texts([row], AugmentParams(n_a=9, p_t=1.0)) == [[("the peugeot runs", None)]]
    # Normalised words know no case: there, candidates of a cased model are other words.
    row = RowCandidates(0, TextCandidates("film", (Site(0, 4, "film", "mlm", ("Film", "film"), (0.0,) * 2),)))
    assert sampled_texts([row], AugmentParams(n_a=9, text="reference")) == [[("Film", None)]]
    assert sampled_texts([row], AugmentParams(n_a=9)) == [[]]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_size_of_blocks_changes_nothing(data: st.DataObject) -> None:
    rows, params = data.draw(row_lists()), data.draw(PARAMS)
    expected = draw_samples(rows, params)
    texts = astuple(render_samples(rows, expected))
    entries, segments = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 30))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "MAX_ENTRIES", entries)
        patch.setattr(rendering, "MAX_SEGMENTS", segments)
        found = draw_samples(rows, params)
        assert all(one.equals(two) for one, two in zip(astuple(render_samples(rows, found)), texts, strict=True))
    assert found.words == expected.words
    for name in ("row", "n", "offsets", "site", "word", "origin"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name


PEAK = """
import resource, sys
from shared.candidates import RowCandidates, Site, TextCandidates
from shared.errors import ShardSizeError
from shared.letters import fold
from shared.params import AugmentParams
from shared.sampling import draw_samples
words = tuple(f"c{i}" for i in range(15))
sites = tuple(Site(2 * i, 2 * i + 1, "w", "mlm", words, (0.0,) * 15) for i in range(10))
rows = [RowCandidates(number, TextCandidates("w " * 10, sites)) for number in range(40)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
samples = draw_samples(rows, AugmentParams(n_a=10_000))
print(len(samples), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_many_samples_are_drawn_in_bounded_memory() -> None:
    finished = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, cwd=ROOT, check=True)
    count, peak = map(int, finished.stdout.split())
    # 4 million (row, draw, word) entries: at 250 to 480 bytes each they would take 1 to 2 GB at once. The samples
    # themselves take 60 MB, and twice that while their parts are joined.
    assert count == 400_000
    assert peak < 450, f"{peak} MiB"


def test_a_shard_with_more_text_than_arrow_can_hold_is_refused_with_advice() -> None:
    words = tuple(f"c{index}" for index in range(15))
    sites = tuple(Site(2 * index, 2 * index + 1, "w", "mlm", words, (0.0,) * 15) for index in range(4))
    row = RowCandidates(0, TextCandidates("w " * 4 + "é" * 2_000_000, sites))
    samples = draw_samples([row], AugmentParams(n_a=600))
    with pytest.raises(ShardSizeError, match=r"1 source rows exceed .* \(2\.2 GiB\); .* smaller --shard-rows"):
        render_samples([row], samples)
