"""Single segments and pairs: no text is lost, half are pairs, and a plan depends on its arguments alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.corpus import Vocabulary
from trainer.data.segments import BLOCK_LINES, Plan, SegmentSource, pair_by_shared_token, plan_epoch
from trainer.data.text import TextSource
from trainer.data.token_file import TokenFile

VOCABULARY = Vocabulary(size=1000, cls_id=1, sep_id=2, pad_id=0, mask_id=3, sentence_end_ids=(7,), first_word_id=4)


def token_file(lengths: list[int], seed: int) -> TokenFile:
    ids = np.random.default_rng(seed).integers(4, 60, sum(lengths), dtype=np.int32)
    return TokenFile(ids=ids, offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def source_of(files: list[TokenFile], pair_share: float = 0.5, seed: int = 0, max_length: int = 32) -> SegmentSource:
    return SegmentSource(
        files=files,
        weights=[1.0] * len(files),
        vocabulary=VOCABULARY,
        max_length=max_length,
        batch_size=4,
        seed=seed,
        pair_share=pair_share,
    )


@given(
    lines=st.lists(st.integers(1, 90), min_size=1, max_size=60),
    max_length=st.integers(16, 48),
    pair_share=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 99),
    epoch=st.integers(0, 3),
)
def test_an_epoch_holds_all_text_once(
    lines: list[int], max_length: int, pair_share: float, seed: int, epoch: int
) -> None:
    source = source_of([token_file(lines, seed)], pair_share, seed, max_length)
    plan = plan_epoch(source, epoch)
    segments = [tuple(row[1:3]) for row in plan.rows.tolist()]
    segments += [tuple(row[3:]) for row in plan.rows.tolist() if row[4] > row[3]]
    segments.sort()
    assert [start for start, _ in segments] == [0, *(end for _, end in segments[:-1])]
    assert segments[-1][1] == sum(lines)
    assert plan.offsets[0] == 0
    assert plan.offsets[-1] == len(plan.rows)
    assert (np.diff(plan.offsets) > 0).all()


@given(
    files=st.lists(st.lists(st.integers(1, 90), min_size=1, max_size=40), min_size=1, max_size=3),
    part_tokens=st.integers(50, 2000),
    pair_share=st.sampled_from([None, 0.5, 1.0]),
    seed=st.integers(0, 9),
    this_pass=st.integers(0, 2),
)
def test_the_parts_of_a_large_corpus_make_one_pass_over_it(
    files: list[list[int]], part_tokens: int, pair_share: float | None, seed: int, this_pass: int
) -> None:
    source: SegmentSource | TextSource
    made = [token_file(lines, seed) for lines in files]
    if pair_share is None:
        source = TextSource(
            files=made, weights=[1.0] * len(made), vocabulary=VOCABULARY, max_length=32, batch_size=4, seed=seed
        )
    else:
        source = source_of(made, pair_share, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.data.token_file.PART_TOKENS", part_tokens)
        num_parts = source.num_parts
        assert num_parts == -(-source.tokens_per_pass // part_tokens)
        found: list[tuple[int, int, int]] = []
        for epoch in range(this_pass * num_parts, (this_pass + 1) * num_parts):
            plan = source.plan(epoch)
            rows = plan.rows if isinstance(plan, Plan) else plan.segments
            assert sum(end - start for _, start, end in rows[:, :3].tolist()) <= part_tokens + len(files) * 90
            found += [(file, start, end) for file, start, end in rows[:, :3].tolist()]
            found += [(row[0], *row[3:]) for row in rows.tolist() if len(row) > 3 and row[4] > row[3]]
            # Read as they were planned, from the right places.
            for window in range(source.num_windows(epoch)):
                source.prepare(epoch, window)
    for number, lines in enumerate(files):
        segments = sorted((start, end) for file, start, end in found if file == number)
        assert [start for start, _ in segments] == [0, *(end for _, end in segments[:-1])]
        assert segments[-1][1] == sum(lines)


@given(st.integers(0, 99), st.integers(0, 2))
def test_windows_follow_from_the_arguments_alone(seed: int, epoch: int) -> None:
    files = [token_file([40] * 50, 1), token_file([9] * 50, 2)]
    source, again = source_of(files, seed=seed), source_of(files, seed=seed)
    again.prepare(epoch + 1, 0)  # A source that was used for another epoch before gives the same windows.
    last = source.num_windows(epoch) - 1
    first, second = source.prepare(epoch, last), again.prepare(epoch, last)
    assert np.array_equal(first.pieces.ids, second.pieces.ids)
    assert np.array_equal(first.pieces.type_ids, second.pieces.type_ids)
    assert np.array_equal(first.batch_offsets, second.batch_offsets)


def test_rows_are_what_a_bert_tokenizer_makes_of_one_text_and_of_two() -> None:
    source = source_of([token_file([60] * 64, 3)])
    window = source.prepare(0, 0)
    num_pairs = 0
    for start, end in zip(window.pieces.offsets[:-1], window.pieces.offsets[1:], strict=True):
        ids, types = window.pieces.ids[start:end].tolist(), window.pieces.type_ids[start:end].tolist()
        assert len(ids) <= source.max_length
        assert ids[0] == VOCABULARY.cls_id
        assert ids[-1] == VOCABULARY.sep_id
        first = ids.index(VOCABULARY.sep_id)
        assert types == [0] * (first + 1) + [1] * (len(ids) - first - 1)
        assert ids.count(VOCABULARY.sep_id) == 1 + (first < len(ids) - 1)
        num_pairs += first < len(ids) - 1
    assert 0 < num_pairs < len(window.pieces.lengths)


def test_half_of_the_tokens_are_in_pairs_and_each_line_takes_both_forms() -> None:
    lines = [30] * (BLOCK_LINES * 100)
    source = source_of([token_file(lines, 4)])
    paired = []
    for epoch in (0, 1):
        rows = plan_epoch(source, epoch).rows
        is_pair = rows[:, 4] > rows[:, 3]
        tokens = np.zeros(sum(lines), bool)
        for row in rows[is_pair].tolist():
            tokens[row[1] : row[2]] = tokens[row[3] : row[4]] = True
        paired.append(tokens)
        assert 0.35 < tokens.mean() < 0.65
    # An odd number of segments leaves one of them single.
    assert (paired[0] ^ paired[1]).mean() > 0.97


def test_segments_with_a_rare_token_in_common_are_paired() -> None:
    common = [10, 11, 12, 13, 14]
    rare = [100, 101, 102, 101, 103, 100, 104]
    ids = np.asarray([token for one in rare for token in (*common, one)], np.int32)
    file = TokenFile(ids=ids, offsets=np.arange(len(rare) + 1, dtype=np.int64) * 6)
    segments = np.stack([file.offsets[:-1], file.offsets[1:]], axis=1)
    pairs = pair_by_shared_token(file, segments, np.random.default_rng(0))
    found = {frozenset(pair) for pair in pairs.tolist()}
    assert {frozenset((0, 5)), frozenset((1, 3))} <= found
    assert len(found) == len(rare) // 2
    assert len({place for pair in found for place in pair}) == 2 * (len(rare) // 2)


@pytest.mark.parametrize("number", [0, 1])
def test_too_few_segments_make_no_pair(number: int) -> None:
    file = token_file([5], 0)
    segments = np.asarray([[0, 5]], np.int64)[:number]
    assert len(pair_by_shared_token(file, segments, np.random.default_rng(0))) == 0


def test_an_epoch_that_samples_nothing_has_no_windows() -> None:
    source = source_of([token_file([20] * 3, 0)])
    source.weights = [1e-9]
    assert source.num_windows(0) == 0
    assert source.tokens_per_pass == pytest.approx(6e-8)
