"""Samples in the service's JSON equal those that the batch job writes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shared.candidates import RowCandidates, Site, TextCandidates
from shared.params import AugmentParams
from shared.rendering import render_rows, render_samples
from shared.sampling import draw_samples

LETTERS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)


@st.composite
def texts(draw: st.DrawFn) -> TextCandidates:
    parts = draw(st.lists(st.tuples(LETTERS, LETTERS, st.lists(LETTERS, max_size=4, unique=True)), max_size=5))
    text, sites = "", []
    for gap, word, candidates in parts:
        text += gap
        sites.append(Site(len(text), len(text) + len(word), word, "mlm", tuple(candidates), (0.0,) * len(candidates)))
        text += word
    return TextCandidates(text + draw(LETTERS), tuple(sites))


@given(texts(), st.none() | texts(), st.integers(0, 2**63 - 1))
def test_samples_of_a_response_equal_those_of_a_shard(a: TextCandidates, b: TextCandidates | None, seed: int) -> None:
    row = RowCandidates(5, a, b)
    samples = draw_samples([row], AugmentParams(n_a=6, seed=seed))
    rendered = render_samples([row], samples)
    columns = (samples.n.tolist(), *(one.to_pylist() for one in (rendered.text_a, rendered.text_b, rendered.replaced)))
    names = ("n", "text_a", "text_b", "replaced")
    assert render_rows([row], samples) == [[dict(zip(names, one, strict=True)) for one in zip(*columns, strict=True)]]
