"""Derived seeds: in range for every --seed, distinct within a run, and unchanged where earlier runs used them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from shared import seeds

SEEDS = st.integers(0, 2**63 - 1) | st.integers(0, 10)
STEPS = st.integers(0, 10**9) | st.integers(0, 100)
RANKS = st.integers(0, 1000) | st.integers(0, 3)
STAGES = st.integers(0, 1)
EPOCHS = st.integers(0, 10**4)


@given(SEEDS, STEPS, RANKS)
def test_torch_accepts_the_seed_of_every_step(seed: int, step: int, rank: int) -> None:
    value = seeds.step_seed(seed, step, rank)
    assert 0 <= value < 2**64
    assert value == seeds.step_seed(seed, step, rank)
    torch.Generator().manual_seed(value)


@given(SEEDS, st.lists(st.tuples(STEPS, RANKS), min_size=2, max_size=40, unique=True))
def test_no_two_steps_or_ranks_of_a_run_share_a_seed(seed: int, places: list[tuple[int, int]]) -> None:
    values = [seeds.step_seed(seed, step, rank) for step, rank in places]
    assert len(set(values)) == len(values)


@given(st.lists(st.tuples(SEEDS, st.integers(0, 10**6), RANKS), min_size=2, max_size=40, unique=True))
def test_no_two_runs_share_the_seed_of_a_step(places: list[tuple[int, int, int]]) -> None:
    values = [seeds.step_seed(*place) for place in places]
    assert len(set(values)) == len(values)


def test_the_seeds_of_ordinary_runs_have_not_changed() -> None:
    assert seeds.step_seed(0, 0, 0) == 0
    assert seeds.step_seed(3, 17, 1) == (3 * 1_000_003 + 17) * 64 + 1
    assert seeds.step_seed(10**11, 5, 63) == (10**11 * 1_000_003 + 5) * 64 + 63
    assert [seeds.stage_seed(7, stage) for stage in (0, 1)] == [14, 15]
    assert seeds.epoch_seed(9, 0) == 9
    assert seeds.epoch_seed(9, 1) == 2623520539720476464


def test_a_large_seed_is_folded_instead_of_overflowing() -> None:
    assert 2**63 <= seeds.step_seed(10**12, 0, 0) < 2**64
    assert 2**63 <= seeds.stage_seed(2**63 - 1, 1) < 2**64


@given(st.lists(st.tuples(SEEDS, STAGES), min_size=2, max_size=40, unique=True))
def test_no_two_stages_share_a_seed(places: list[tuple[int, int]]) -> None:
    values = [seeds.stage_seed(*place) for place in places]
    assert all(0 <= value < 2**64 for value in values)
    assert len(set(values)) == len(values)


@given(SEEDS, EPOCHS, st.integers(0, 10**4), STEPS)
def test_every_generator_takes_every_seed(seed: int, epoch: int, window: int, step: int) -> None:
    stage = seeds.stage_seed(seed, 1)
    assert 0 <= seeds.epoch_seed(seed, epoch) < 2**63
    makers: tuple[Callable[[], np.random.Generator], ...] = (
        lambda: seeds.table_order(seed, epoch),
        lambda: seeds.shard_order(stage, epoch),
        lambda: seeds.window_order(stage, epoch, window),
        lambda: seeds.text_order(seed, epoch),
        lambda: seeds.masks(seed, step),
    )
    for make in makers:
        assert make().random() == make().random()


@given(SEEDS, st.lists(st.tuples(EPOCHS, STEPS), min_size=2, max_size=20, unique=True))
def test_orders_and_masks_of_plain_text_never_share_a_stream(seed: int, places: list[tuple[int, int]]) -> None:
    epochs, steps = {epoch for epoch, _ in places}, {step for _, step in places}
    draws = [seeds.text_order(seed, epoch).random() for epoch in epochs]
    draws += [seeds.masks(seed, step).random() for step in steps]
    assert len(set(draws)) == len(draws)
