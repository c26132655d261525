"""Windows and batches: every row once, like lengths together, parts that add up to the whole."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.batches import Examples, Pieces, make_batch, plan_window, prepare_window


def pieces_of(lengths: list[int]) -> Pieces:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Pieces(np.arange(offsets[-1], dtype=np.int32), np.zeros(offsets[-1], np.uint8), offsets)


def examples_of(count: int) -> Examples:
    keys = np.stack([np.arange(count), np.zeros(count, np.int64)], axis=1).astype(np.int64)
    return Examples([""] * count, None, np.arange(count, dtype=np.float32), keys)


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=120),
    batch_size=st.integers(1, 9),
    num_parts=st.integers(1, 5),
    seed=st.integers(0, 2**63 - 1),
)
def test_parts_of_the_batches_hold_every_row_once_with_its_own_pieces(
    lengths: list[int], batch_size: int, num_parts: int, seed: int
) -> None:
    pieces = pieces_of(lengths)
    window = prepare_window(examples_of(len(lengths)), pieces, batch_size, (seed, 1), 0.0, 1.0)
    seen: list[int] = []
    for number in range(window.num_batches):
        parts = [make_batch(window, number, -1, part, num_parts) for part in range(num_parts)]
        present = [part for part in parts if part is not None]
        for part in present:
            for row in range(len(part.labels)):
                index = int(part.labels[row])
                assert part.keys[row, 0] == index
                start, stop = pieces.offsets[index : index + 2]
                own = part.input_ids[row][part.mask[row]].numpy()
                assert np.array_equal(own, pieces.ids[start:stop])
                assert (part.input_ids[row][~part.mask[row]] == -1).all()
                seen.append(index)
            assert (part.model_mask is None) == bool(part.mask.all())
        for share in ("row_share", "piece_share", "pair_share"):
            assert sum(getattr(part, share) for part in present) == pytest.approx(1.0)
    assert sorted(seen) == list(range(len(lengths)))


def test_the_order_is_a_function_of_the_seed_and_almost_nothing_is_padding() -> None:
    generator = np.random.default_rng(0)
    lengths = generator.integers(4, 60, 4000)
    first, offsets = plan_window(lengths, 32, np.random.Generator(np.random.Philox(5)))
    again, _ = plan_window(lengths, 32, np.random.Generator(np.random.Philox(5)))
    other, _ = plan_window(lengths, 32, np.random.Generator(np.random.Philox(6)))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    padded = sum(int(lengths[first[low:high]].max()) * (high - low) for low, high in itertools.pairwise(offsets))
    assert lengths.sum() / padded > 0.95
