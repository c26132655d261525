"""Sequences and batches of plain text: every token once, few shapes, a plan that depends on the seed alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.distillation import VOCABULARY, text_source
from trainer.data.text import LENGTH_MULTIPLE, WINDOW_BATCHES

LINES = st.lists(st.integers(1, 90), min_size=1, max_size=40)


@settings(deadline=None)
@given(LINES, st.integers(8, 41), st.integers(1, 9), st.integers(0, 99))
def test_an_epoch_holds_every_token_once_within_the_budget(
    lines: list[int], max_length: int, batch_size: int, seed: int
) -> None:
    source = text_source(lines, max_length=max_length, batch_size=batch_size, seed=seed)
    plan = source.plan(0)
    covered = sorted(plan.segments.tolist())
    assert [start for _, start, _ in covered] == [0, *(end for _, _, end in covered[:-1])]
    assert covered[-1][2] == len(source.files[0].ids)
    for low, high in zip(plan.batch_offsets[:-1], plan.batch_offsets[1:], strict=True):
        lengths = plan.segments[low:high, 2] - plan.segments[low:high, 1] + 2
        padded = int(lengths.max()) + -int(lengths.max()) % LENGTH_MULTIPLE
        assert high == low + 1 or len(lengths) * padded <= batch_size * max_length
        assert lengths.max() <= max_length


@settings(deadline=None)
@given(LINES, st.integers(0, 3))
def test_windows_hold_the_rows_of_the_plan_with_special_tokens(lines: list[int], epoch: int) -> None:
    source = text_source(lines, max_length=16, batch_size=1, seed=4)
    plan, place = source.plan(epoch), 0
    for number in range(source.num_windows(epoch)):
        window = source.prepare(epoch, number)
        assert window.num_batches <= WINDOW_BATCHES
        for row in range(len(window.labels)):
            file, start, end = plan.segments[place]
            own = window.pieces.ids[window.pieces.offsets[row] : window.pieces.offsets[row + 1]]
            assert own.tolist() == [VOCABULARY.cls_id, *source.files[file].ids[start:end], VOCABULARY.sep_id]
            place += 1
    assert place == len(plan.segments)
    assert window.end == epoch + 1


def test_weights_repeat_files_and_sample_parts_of_them() -> None:
    source = text_source([20] * 500, max_length=32, batch_size=4, seed=1, weights=(2.5,))
    passes = np.zeros(500 * 20)
    for _, start, end in source.plan(0).segments.tolist():
        passes[start:end] += 1
    assert set(passes.tolist()) == {2, 3}
    assert abs(passes.mean() - 2.5) < 0.1
    assert source.tokens_per_pass == 2.5 * 500 * 20


def test_an_epoch_that_samples_nothing_has_no_windows() -> None:
    source = text_source([20] * 3, max_length=32, batch_size=4, seed=1, weights=(1e-9,))
    assert source.num_windows(0) == 0


def test_going_back_to_an_epoch_gives_the_same_plan() -> None:
    source = text_source([20] * 50, max_length=32, batch_size=4, seed=1)
    first, second = source.plan(0), source.plan(1)
    assert not np.array_equal(first.segments, second.segments)
    assert np.array_equal(source.plan(0).segments, first.segments)
