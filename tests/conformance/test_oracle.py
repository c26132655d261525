"""The engine compared with a plain oracle, on small random models of every architecture, in every mode."""

from __future__ import annotations

import itertools
from dataclasses import astuple
from typing import Any

import pytest
from transformers import AutoModelForMaskedLM

from augment_service.engine.augment import AugmentEngine
from augment_service.engine.glove import GloveVectors
from augment_service.engine.masked_lm import MaskedLM
from shared.inputs.rows import SourceRow
from shared.params import AugmentParams
from shared.rendering import render_samples
from tests.support.models import KINDS, save_random_model, save_random_vectors
from tests.support.oracle import expected_candidates

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "a great movie, with bad acting -- she said honestly",
    "这部电影很好看。",
    "Ein guter Film",
    "the the the the",
    "...",
]


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> GloveVectors:
    return GloveVectors.load(str(save_random_vectors(tmp_path_factory.mktemp("glove") / "glove.txt")))


@pytest.fixture(scope="module", params=KINDS)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[MaskedLM, Any]:
    folder = str(save_random_model(request.param, tmp_path_factory.mktemp(request.param), max_length=128))
    return MaskedLM.load(folder, "cpu", "fp32"), AutoModelForMaskedLM.from_pretrained(folder).eval()


@pytest.mark.parametrize("rule", ["reference", "whole-words"])
@pytest.mark.parametrize("context", ["single", "pair", "unmasked"])
def test_masked_lm_candidates_equal_the_oracle(
    loaded: tuple[MaskedLM, Any], vectors: GloveVectors, context: Any, rule: Any
) -> None:
    masked_lm, model = loaded
    engine = AugmentEngine(masked_lm, vectors, AugmentParams(context=context, filter=rule, words="all", k=7), 64)
    num_sites = 0
    for found in engine.propose(TEXTS):
        for proposal in found.proposals:
            if proposal.origin == "mlm":
                expected = expected_candidates(engine, model, found.words, proposal.word_index)
                assert list(proposal.candidates) == expected, found.words[proposal.word_index].text
                num_sites += 1
    assert num_sites > 5


def test_every_combination_of_switches_gives_valid_samples(
    loaded: tuple[MaskedLM, Any], vectors: GloveVectors, request: pytest.FixtureRequest
) -> None:
    rows = [SourceRow(3, TEXTS[0], TEXTS[1]), SourceRow(4, TEXTS[2]), SourceRow(5, TEXTS[5])]
    every = itertools.product(
        ["original", "sequential"],
        ["single", "pair", "unmasked"],
        ["reference", "all-letters", "all"],
        ["preserve", "reference"],
        ["reference", "whole-words"],
    )
    # Spread over the architectures at odd distances, so that each one is tested with every value of every switch.
    kind = KINDS.index(request.node.callspec.params["loaded"])
    switches = [one for number, one in enumerate(every) if (number + number // 8) % len(KINDS) == kind]
    assert all(len({one[place] for one in switches}) > 1 for place in range(5))
    for conditioning, context, words, text, rule in switches:
        chosen = {"conditioning": conditioning, "context": context, "words": words, "text": text, "filter": rule}
        params = AugmentParams.model_validate(chosen | {"n_a": 2, "k": 4})
        found, samples = AugmentEngine(loaded[0], vectors, params).samples(rows)
        rendered = render_samples(found, samples)
        assert len(found) == 3
        for text_a, text_b, replaced in zip(*(column.to_pylist() for column in astuple(rendered)), strict=True):
            assert replaced
            for one in replaced:
                changed = text_a if one["column"] == "text_a" else text_b
                assert changed[one["start"] : one["end"]] == one["candidate"] != one["word"]
        # The last row is only punctuation: nothing may be replaced, so it has no samples.
        assert 2 not in samples.row.tolist()


def test_a_text_longer_than_the_model_is_answered_at_every_word(
    loaded: tuple[MaskedLM, Any], vectors: GloveVectors
) -> None:
    text = " ".join(["fox", "dog", "river", "movie", "plot"] * 30)
    for context in ("single", "pair", "unmasked"):
        engine = AugmentEngine(loaded[0], vectors, AugmentParams(context=context, filter="whole-words", k=3))
        found = engine.propose([text])[0]
        # In a small sentencepiece vocabulary, tokens may cross the boundaries of words; such words are not replaced.
        assert len(found.words) == 150
        assert len(found.proposals) >= 120
        assert all(one.candidates for one in found.proposals if one.origin == "mlm")
