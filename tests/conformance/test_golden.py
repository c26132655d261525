"""The engine gives exactly the golden candidates, at every site of every text, in both contexts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from augment_service.engine.augment import AugmentEngine
from augment_service.engine.glove import GloveVectors
from augment_service.engine.masked_lm import MaskedLM
from shared.params import AugmentParams, Context
from tests.support.hardware import NEEDS_BF16

pytestmark = pytest.mark.golden


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def models(golden_dir: Path) -> tuple[MaskedLM, GloveVectors]:
    lm = MaskedLM.load(str(golden_dir / "model"), "cpu", "fp32")
    return lm, GloveVectors.load(str(golden_dir / "glove.txt.gz"), 100_000)


@pytest.mark.parametrize("context", ["single", "pair"])
def test_candidates_equal_the_golden_ones(
    golden_dir: Path, models: tuple[MaskedLM, GloveVectors], context: Context
) -> None:
    engine = AugmentEngine(*models, AugmentParams(context=context, k=15))
    expected = read_jsonl(golden_dir / f"candidates_{context}.jsonl")
    answers = engine.propose([one["text"] for one in expected], 30)
    num_sites = 0
    for want, got in zip(expected, answers, strict=True):
        assert [word.text for word in got.words] == want["words"]
        assert [one.word_index for one in got.proposals] == [site["i"] for site in want["sites"]]
        for proposal, site in zip(got.proposals, want["sites"], strict=True):
            word = got.words[proposal.word_index].text
            assert (list(proposal.candidates) or [word]) == site["candidates"], (want["id"], word)
            assert (proposal.origin, proposal.position) == (site["source"], site.get("position"))
            tolerance = 0.002 if proposal.origin == "mlm" else 1e-5
            scores = [score for _, score in site["ranked"]]
            assert [score for _, score in proposal.ranked[:30]] == pytest.approx(scores, abs=tolerance)
            num_sites += 1
    assert num_sites == 331


@NEEDS_BF16
def test_bf16_keeps_most_candidates(golden_dir: Path, models: tuple[MaskedLM, GloveVectors]) -> None:
    texts = [one["text"] for one in read_jsonl(golden_dir / "candidates_single.jsonl")]
    exact = AugmentEngine(*models, AugmentParams()).propose(texts)
    low = MaskedLM.load(str(golden_dir / "model"), "cpu", "bf16")
    rounded = AugmentEngine(low, models[1], AugmentParams()).propose(texts)
    pairs = [
        (set(a.candidates), set(b.candidates))
        for one, two in zip(exact, rounded, strict=True)
        for a, b in zip(one.proposals, two.proposals, strict=True)
    ]
    overlap = sum(len(a & b) for a, b in pairs) / sum(len(a) for a, _ in pairs)
    assert overlap > 0.9
