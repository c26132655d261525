"""Masked batches: few shapes, masks on real tokens, the same masks for any number of parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.distillation import VOCABULARY, text_source
from trainer.data.text import LENGTH_MULTIPLE
from trainer.mlm.masking import IGNORED, TARGET_MULTIPLE, MaskedBatch, MaskedSource, MaskedWindow, Masking

MASK_PROBABILITY = 0.3


def masked_window(lines: list[int], max_length: int, batch_size: int, seed: int) -> MaskedWindow:
    masking = Masking(vocabulary=VOCABULARY, probability=MASK_PROBABILITY, max_length=max_length, seed=seed)
    text = text_source(lines, max_length=max_length, batch_size=batch_size, seed=seed)
    return MaskedSource(text=text, masking=masking).prepare(0, 0)


def original_rows(window: MaskedWindow, batch: int) -> list[list[int]]:
    low, high = window.text.batch_offsets[batch : batch + 2]
    pieces = window.text.pieces
    return [pieces.ids[pieces.offsets[row] : pieces.offsets[row + 1]].tolist() for row in range(low, high)]


def restored_rows(part: MaskedBatch) -> list[list[int]]:
    """The rows of a part with its labels put back."""
    ids, asked = part.ids.numpy().copy(), part.labels.numpy() != IGNORED
    ids.reshape(-1)[part.positions.numpy()[asked]] = part.labels.numpy()[asked]
    return [row[:length].tolist() for row, length in zip(ids, part.lengths.tolist(), strict=True)]


@settings(deadline=None)
@given(
    lines=st.lists(st.integers(1, 90), min_size=1, max_size=40),
    max_length=st.integers(8, 41),
    batch_size=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_a_batch_asks_for_masked_tokens_only(lines: list[int], max_length: int, batch_size: int, seed: int) -> None:
    window = masked_window(lines, max_length, batch_size, seed)
    for step in range(window.num_batches):
        batch = window.part(step, 0, 1, step)
        if batch is None:
            continue
        width = batch.ids.shape[1]
        assert width == max_length or (width < max_length and width % LENGTH_MULTIPLE == 0)
        assert 0 <= width - int(batch.lengths.max()) < LENGTH_MULTIPLE
        assert len(batch.positions) == len(batch.labels)
        assert len(batch.positions) % TARGET_MULTIPLE == 0
        labels, positions = batch.labels.numpy(), batch.positions.numpy()
        asked = labels != IGNORED
        assert (np.diff(asked.astype(int)) <= 0).all()
        assert len(set(positions[asked].tolist())) == asked.sum()
        assert (labels[asked] >= VOCABULARY.first_word_id).all()
        assert restored_rows(batch) == original_rows(window, step)
        assert batch.target_share == 1.0
        assert int(batch.lengths.sum()) == window.num_tokens(step)


@settings(deadline=None)
@given(
    lines=st.lists(st.integers(1, 60), min_size=1, max_size=40),
    num_parts=st.integers(1, 5),
    step=st.integers(0, 10**6),
)
def test_parts_have_the_rows_and_masks_of_the_whole_batch(lines: list[int], num_parts: int, step: int) -> None:
    window = masked_window(lines, 24, 6, 7)
    for number in range(window.num_batches):
        whole = window.part(number, 0, 1, step)
        parts = [window.part(number, part, num_parts, step) for part in range(num_parts)]
        if whole is None:
            assert parts == [None] * num_parts
            continue
        present = [part for part in parts if part is not None]
        assert sum(part.target_share for part in present) == pytest.approx(1.0)
        for index, part in enumerate(parts):
            if part is not None:
                assert restored_rows(part) == original_rows(window, number)[index::num_parts]
                width = part.ids.shape[1]
                assert (part.ids == whole.ids[index::num_parts, :width]).all()
        counts = [int((part.labels != IGNORED).sum()) for part in present]
        assert sum(counts) == int((whole.labels != IGNORED).sum())


def test_shares_of_masks() -> None:
    masking = Masking(vocabulary=VOCABULARY, probability=MASK_PROBABILITY, max_length=32, seed=5)
    source = MaskedSource(text=text_source([30] * 3000, max_length=32, batch_size=64, seed=5), masking=masking)
    batches = []
    for number in range(source.num_windows(0)):
        window = source.prepare(0, number)
        batches += [window.part(batch, 0, 1, 100 * number + batch) for batch in range(window.num_batches)]
    present = [batch for batch in batches if batch is not None]
    labels = np.concatenate([one.labels[one.labels != IGNORED].numpy() for one in present])
    shown = np.concatenate([one.ids.reshape(-1)[one.positions[one.labels != IGNORED]].numpy() for one in present])
    assert abs(len(labels) / 90_000 - MASK_PROBABILITY) < 0.01
    assert abs((shown == VOCABULARY.mask_id).mean() - 0.8) < 0.01
    assert abs((shown == labels).mean() - 0.1) < 0.01


def test_steps_have_different_masks() -> None:
    window = masked_window([30] * 20, 32, 8, 1)
    first, again, other = (window.part(0, 0, 1, step) for step in (3, 3, 4))
    assert first is not None
    assert again is not None
    assert other is not None
    assert first.positions.tolist() == again.positions.tolist() != other.positions.tolist()
