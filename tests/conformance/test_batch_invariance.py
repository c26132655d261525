"""Inference is batch-invariant: the same bits for any batch composition, with one thread or two, in fp32 and bf16."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from augment_service.engine.batches import ModelInput, plan_batches
from augment_service.engine.masked_lm import MaskedLM
from tests.support.hardware import CPU_DTYPES
from tests.support.models import save_random_model

LENGTHS = (3, 4, 5, 6, 7, 9, 12, 15, 16, 17, 20, 25, 31, 40, 63)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def random_inputs(masked_lm: MaskedLM, count: int, lengths: tuple[int, ...] = LENGTHS) -> list[ModelInput]:
    rng = random.Random(1)
    lexicon = masked_lm.lexicon
    inputs = []
    for _ in range(count):
        length = rng.choice(lengths)
        ids = [rng.randrange(5, masked_lm.vocab_size) for _ in range(length - 2)]
        positions = tuple(sorted(rng.sample(range(1, length - 1), k=rng.choice([1, 1, 1, min(length - 2, 3)]))))
        inputs.append(ModelInput((lexicon.cls_id, *ids, lexicon.sep_id), positions, length))
    return inputs


def check_invariance(masked_lm: MaskedLM, inputs: list[ModelInput]) -> None:
    def answers(batch_tokens: int, num_threads: int) -> list[tuple[bytes, bytes]]:
        torch.set_num_threads(num_threads)
        plan = plan_batches(inputs, batch_tokens)
        found = masked_lm.rank(plan.unique, plan.batches, 16, None)
        return [(found[i].ids.tobytes(), found[i].scores.tobytes()) for i in plan.index_of]

    expected = answers(1024, 1)
    assert len({scores for _, scores in expected}) > len(inputs) // 2
    for batch_tokens, num_threads in ((8, 1), (100, 1), (512, 2), (8, 2)):
        assert answers(batch_tokens, num_threads) == expected, (batch_tokens, num_threads)


@pytest.mark.parametrize("dtype", CPU_DTYPES)
@pytest.mark.parametrize("kind", ["bert-uncased", "distilbert", "electra", "roberta", "modernbert"])
def test_answers_do_not_depend_on_the_batch(kind: str, dtype: str, tmp_path: Path) -> None:
    masked_lm = MaskedLM.load(str(save_random_model(kind, tmp_path / kind, num_heads=2)), "cpu", dtype)
    check_invariance(masked_lm, random_inputs(masked_lm, 150))


@pytest.mark.golden
@pytest.mark.parametrize("dtype", CPU_DTYPES)
def test_golden_answers_do_not_depend_on_the_batch(golden_dir: Path, dtype: str) -> None:
    masked_lm = MaskedLM.load(str(golden_dir / "model"), "cpu", dtype)
    check_invariance(masked_lm, random_inputs(masked_lm, 100, (*LENGTHS, 90, 130, 300)))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", CPU_DTYPES)
def test_embedded_answers_do_not_depend_on_the_batch(dtype: str) -> None:
    masked_lm = MaskedLM.load("embedded", "cpu", dtype)
    check_invariance(masked_lm, random_inputs(masked_lm, 60, (3, 5, 8, 12, 20, 31, 45, 70, 200)))


def test_the_ranking_for_a_smaller_k_is_a_prefix_of_that_for_a_larger_k(tmp_path: Path) -> None:
    masked_lm = MaskedLM.load(str(save_random_model("bert-uncased", tmp_path / "model")), "cpu", "fp32")
    inputs = random_inputs(masked_lm, 20)
    plan = plan_batches(inputs, 256)
    narrow, wide = (masked_lm.rank(plan.unique, plan.batches, k, None) for k in (5, 40))
    for one, other in zip(narrow, wide, strict=True):
        assert np.array_equal(one.ids, other.ids[:, :5])
