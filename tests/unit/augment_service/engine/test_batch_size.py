"""Tokens per model batch: the choice for any rates, and the measurement on a real small model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from augment_service.augmenter import Augmenter
from augment_service.config import CandidatesConfig
from augment_service.engine import batch_size
from augment_service.engine.batch_size import AS_GOOD, SIZES, WORSE, best_size, resolve_batch_tokens, tokens_per_second
from augment_service.engine.masked_lm import MaskedLM
from shared.errors import UsageError
from tests.support.models import save_random_model, save_random_vectors


@pytest.fixture(scope="module")
def masked_lm(tmp_path_factory: pytest.TempPathFactory) -> MaskedLM:
    folder = tmp_path_factory.mktemp("model")
    return MaskedLM.load(str(save_random_model("bert-uncased", folder)), "cpu", "fp32")


@given(st.lists(st.floats(0, 1e6), min_size=len(SIZES), max_size=len(SIZES)))
def test_the_smallest_size_that_is_as_good_as_any_is_chosen(given: list[float]) -> None:
    rates, asked = dict(zip(SIZES, given, strict=True)), list[int]()

    def rate(size: int) -> float:
        asked.append(size)
        return rates[size]

    chosen, best = best_size(rate), max(rates[size] for size in asked)
    assert rates[chosen] >= AS_GOOD * best
    assert all(rates[size] < AS_GOOD * best for size in asked if size < chosen)
    assert asked == list(SIZES[: len(asked)])
    # It stops only where the rate has fallen.
    assert len(asked) == len(SIZES) or rates[asked[-1]] <= WORSE * best


def test_a_card_that_saturates_and_one_whose_memory_ends() -> None:
    assert best_size(lambda size: min(size, 9000) * 50.0) == 16_384
    assert best_size(lambda size: size * 50.0 if size <= 4096 else 0.0) == 4096
    assert best_size(lambda _: 0.0) == SIZES[0]


def test_a_cpu_keeps_its_default_and_a_number_is_taken_as_it_is(masked_lm: MaskedLM) -> None:
    assert resolve_batch_tokens(None, masked_lm) == 1024
    assert resolve_batch_tokens(77, masked_lm) == 77


def test_the_measurement_computes_and_does_not_count_as_the_jobs(
    masked_lm: MaskedLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard, computed = masked_lm.guard, list[int]()
    states = masked_lm._states

    def spied(inputs: Any) -> torch.Tensor:
        computed.append(sum(map(len, inputs)))
        return states(inputs)

    monkeypatch.setattr(masked_lm, "_states", spied)
    assert tokens_per_second(masked_lm, 256, rounds=2) > 0
    assert computed == [256] * 2
    assert masked_lm.guard is guard
    assert guard.batches == 0
    # As on a GPU, of which only the name is missing here.
    monkeypatch.setattr(masked_lm, "device", "cuda:0")
    monkeypatch.setattr(batch_size, "tokens_per_second", lambda _, size: min(size, 3000))
    assert resolve_batch_tokens(None, masked_lm) == 4096


def test_a_size_that_does_not_fit_into_memory_has_no_rate(masked_lm: MaskedLM, monkeypatch: pytest.MonkeyPatch) -> None:
    states = masked_lm._states

    def small_memory(inputs: Any) -> torch.Tensor:
        if len(inputs) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return states(inputs)

    monkeypatch.setattr(masked_lm, "_states", small_memory)
    assert tokens_per_second(masked_lm, 256, rounds=1) > 0
    assert tokens_per_second(masked_lm, 512, rounds=1) == 0


def test_auto_is_the_default_and_may_be_written_out(tmp_path: Path) -> None:
    assert CandidatesConfig.build({}).batch_tokens is None
    assert CandidatesConfig.build({"batch_tokens": "auto"}).batch_tokens is None
    assert CandidatesConfig.build({"batch_tokens": "2048"}).batch_tokens == 2048
    for wrong in ("7", "many", "-1"):
        with pytest.raises(UsageError, match="batch-tokens"):
            CandidatesConfig.build({"batch_tokens": wrong})
    models = str(save_random_model("bert-uncased", tmp_path / "m")), str(save_random_vectors(tmp_path / "v.txt"))
    texts = ["a great movie with a small dog"]
    automatic, small = (Augmenter(*models, device="cpu", dtype="fp32", batch_tokens=number) for number in (None, 16))
    assert automatic.augment(texts, n_a=4) == small.augment(texts, n_a=4)
