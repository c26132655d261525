"""Batches of `trainer mlm`: few shapes, every piece once, masks where pieces are."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.corpus import (
    ASKED_MULTIPLE,
    IGNORED,
    LENGTH_MULTIPLE,
    TokenFile,
    Vocabulary,
    epoch_batches,
    make_batch,
)

VOCABULARY = Vocabulary(size=1000, cls_id=1, sep_id=2, pad_id=0, mask_id=3, sentence_end_ids=(7,), first_word_id=4)
MASK_PROBABILITY = 0.3


def token_file(lengths: list[int], seed: int) -> TokenFile:
    draw = np.random.default_rng(seed)
    return TokenFile(
        draw.integers(4, 1000, sum(lengths), dtype=np.int32), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    )


@given(st.lists(st.integers(1, 90), min_size=1, max_size=40), st.integers(8, 41), st.integers(1, 9), st.integers(0, 99))
def test_batches_of_an_epoch(lines: list[int], max_length: int, batch_size: int, seed: int) -> None:
    files = [token_file(lines, seed)]
    plan = epoch_batches(files, [1.0], max_length, batch_size * max_length, VOCABULARY, seed, 0)
    covered = sorted(row for rows in plan for row in rows)
    assert [start for _, start, _ in covered] == [0, *(end for _, _, end in covered[:-1])]
    assert covered[-1][2] == len(files[0].ids)
    for step, rows in enumerate(plan):
        batch = make_batch(files, rows, VOCABULARY, max_length, MASK_PROBABILITY, seed, step)
        again = make_batch(files, rows, VOCABULARY, max_length, MASK_PROBABILITY, seed, step)
        assert np.array_equal(batch.ids, again.ids)
        assert np.array_equal(batch.positions, again.positions)
        width = batch.ids.shape[1]
        assert width == max_length or (width < max_length and width % LENGTH_MULTIPLE == 0)
        assert batch.lengths.tolist() == [end - start + 2 for _, start, end in rows]
        assert width - batch.lengths.max() < LENGTH_MULTIPLE
        assert len(rows) == 1 or len(rows) * width <= batch_size * max_length
        assert len(batch.positions) == len(batch.labels)
        assert len(batch.positions) % ASKED_MULTIPLE == 0
        asked = batch.labels != IGNORED
        assert (np.diff(asked.astype(int)) <= 0).all()
        assert len(set(batch.positions[asked].tolist())) == asked.sum()
        whole = np.full(batch.ids.shape, VOCABULARY.pad_id)
        for row, (_, start, end) in enumerate(rows):
            whole[row, : end - start + 2] = [VOCABULARY.cls_id, *files[0].ids[start:end], VOCABULARY.sep_id]
        assert (whole.reshape(-1)[batch.positions[asked]] == batch.labels[asked]).all()
        assert (batch.labels[asked] >= VOCABULARY.first_word_id).all()
        untouched = np.ones(whole.size, bool)
        untouched[batch.positions[asked]] = False
        assert (batch.ids.reshape(-1)[untouched] == whole.reshape(-1)[untouched]).all()


def test_shares_of_masks() -> None:
    files = [token_file([30] * 3000, 5)]
    plan = epoch_batches(files, [1.0], 32, 32 * 64, VOCABULARY, 5, 0)
    batches = [make_batch(files, rows, VOCABULARY, 32, MASK_PROBABILITY, 5, step) for step, rows in enumerate(plan)]
    labels = np.concatenate([one.labels[one.labels != IGNORED] for one in batches])
    shown = np.concatenate([one.ids.reshape(-1)[one.positions[one.labels != IGNORED]] for one in batches])
    assert abs(len(labels) / 90_000 - MASK_PROBABILITY) < 0.01
    assert abs((shown == VOCABULARY.mask_id).mean() - 0.8) < 0.01
    assert abs((shown == labels).mean() - 0.1) < 0.01
