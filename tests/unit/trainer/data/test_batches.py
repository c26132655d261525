"""Windows and batches: every row once, similar lengths together, parts that add up to the whole."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.seeds import window_order
from trainer.data.batches import Pieces, Tokenized, plan_window, prepare_window, ragged_ranges, to_offsets


def pieces_of(lengths: list[int]) -> Pieces:
    offsets = to_offsets(lengths)
    return Pieces(np.arange(offsets[-1], dtype=np.int32), np.zeros(offsets[-1], np.uint8), offsets)


def data_of(pieces: Pieces) -> Tokenized:
    count = len(pieces.lengths)
    keys = np.stack([np.arange(count), np.zeros(count, np.int64)], axis=1).astype(np.int64)
    return Tokenized(pieces=pieces, labels=np.arange(count, dtype=np.float32), keys=keys)


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=120),
    batch_size=st.integers(1, 9),
    world=st.integers(1, 4),
    accumulate=st.integers(1, 3),
    seed=st.integers(0, 2**63 - 1),
)
def test_parts_of_the_batches_hold_every_row_once_with_its_own_tokens(
    lengths: list[int], batch_size: int, world: int, accumulate: int, seed: int
) -> None:
    pieces = pieces_of(lengths)
    window = prepare_window(
        data_of(pieces),
        batch_size=batch_size,
        generator=window_order(seed, 0, 1),
        begin=0.0,
        end=1.0,
        pad_id=-1,
    )
    num_parts = world * accumulate
    # Each rank gets its own rows alone.
    windows = [window.only(rank, world, accumulate) for rank in range(world)]
    assert sum(len(one.labels) for one in windows) == len(lengths)
    seen: list[int] = []
    for number in range(window.num_batches):
        parts = [windows[part // accumulate].part(number, part, num_parts) for part in range(num_parts)]
        for part, from_all in zip(
            parts, (window.part(number, one, num_parts) for one in range(num_parts)), strict=True
        ):
            assert (part is None) == (from_all is None)
            if part is not None and from_all is not None:
                assert part.input_ids.equal(from_all.input_ids)
                assert (part.pair_share, part.piece_share) == (from_all.pair_share, from_all.piece_share)
        present = [part for part in parts if part is not None]
        for part in present:
            for row in range(len(part.labels)):
                index = int(part.labels[row])
                assert part.keys[row, 0] == part.source_ids[row] == index
                start, stop = pieces.offsets[index : index + 2]
                own = part.input_ids[row][part.mask[row]].numpy()
                assert np.array_equal(own, pieces.ids[start:stop])
                assert (part.input_ids[row][~part.mask[row]] == -1).all()
                seen.append(index)
            assert (part.model_mask is None) == bool(part.mask.all())
        for share in ("row_share", "piece_share", "pair_share"):
            assert sum(getattr(part, share) for part in present) == pytest.approx(1.0)
        assert window.num_rows(number) == sum(len(part.labels) for part in present)
        assert {one.num_tokens(number) for one in windows} == {window.num_tokens(number)}
        assert window.num_tokens(number) == sum(int(part.mask.sum()) for part in present)
    assert sorted(seen) == list(range(len(lengths)))


def test_the_order_is_a_function_of_the_seed_and_there_is_almost_no_padding() -> None:
    generator = np.random.default_rng(0)
    lengths = generator.integers(4, 60, 4000)
    first, offsets = plan_window(lengths, 32, np.random.Generator(np.random.Philox(5)))
    again, _ = plan_window(lengths, 32, np.random.Generator(np.random.Philox(5)))
    other, _ = plan_window(lengths, 32, np.random.Generator(np.random.Philox(6)))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    padded = sum(int(lengths[first[low:high]].max()) * (high - low) for low, high in itertools.pairwise(offsets))
    assert lengths.sum() / padded > 0.95


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9))))
def test_ragged_ranges_are_the_ranges_one_after_the_other(ranges: list[tuple[int, int]]) -> None:
    starts, lengths = (np.asarray([one[side] for one in ranges], np.int64) for side in (0, 1))
    expected = [place for start, length in ranges for place in range(start, start + length)]
    assert ragged_ranges(starts, lengths).tolist() == expected
