"""The validation part: equal texts on one side, the same rows in any order, each class with its share."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.errors import InputError
from trainer.data.split import text_hashes, validation_part

ROWS = st.lists(
    st.tuples(st.text("ab ", max_size=6), st.text("Ab\n", max_size=3), st.integers(0, 3)), min_size=3, max_size=60
)


def _parts(rows: list[tuple[str, str, int]], share: float, maximum: int) -> NDArray[np.bool_]:
    labels = np.asarray([label for *_, label in rows], np.float32)
    texts = [a for a, _, _ in rows], [b for _, b, _ in rows]
    return validation_part(*texts, labels, share=share, maximum=maximum)


@given(ROWS, st.floats(0.01, 0.9), st.integers(1, 40), st.randoms())
def test_a_text_is_on_one_side_whatever_the_order(
    rows: list[tuple[str, str, int]], share: float, maximum: int, random: Random
) -> None:
    try:
        part = _parts(rows, share, maximum)
    except InputError:
        # Every class has a single text.
        first: dict[tuple[str, str], int] = {}
        for a, b, label in rows:
            key = (" ".join(a.split()).casefold(), " ".join(b.split()).casefold())
            first[key] = min(label, first.get(key, 9))
        assert len(set(first.values())) == len(first)
        return
    assert 0 < part.sum() < len(rows)
    sides: dict[int, bool] = {}
    for key, side in zip(text_hashes([a for a, *_ in rows], [b for _, b, _ in rows]).tolist(), part, strict=True):
        assert sides.setdefault(key, bool(side)) == bool(side)
    order = list(range(len(rows)))
    random.shuffle(order)
    assert (_parts([rows[index] for index in order], share, maximum) == part[order]).all()


def test_each_class_gives_its_share_and_the_maximum_holds() -> None:
    texts = [f"text number {index}" for index in range(10_000)]
    labels = np.asarray([index % 10 == 0 for index in range(10_000)], np.float32)
    part = validation_part(texts, None, labels, share=0.1)
    assert part.sum() == 1000
    assert labels[part].sum() == 100
    bounded = validation_part(texts, None, labels, share=0.5, maximum=300)
    assert bounded.sum() == 300
    assert labels[bounded].sum() == 30
    assert not (bounded & ~validation_part(texts, None, labels, share=0.1)).any(), "a smaller part is in the larger one"
    numbers = validation_part(texts, None, None, share=0.02)
    assert numbers.sum() == 200


def test_a_rare_class_is_on_both_sides_and_a_single_text_stays_in_training() -> None:
    texts = [f"text {index}" for index in range(103)]
    labels = np.asarray([0] * 100 + [1, 1, 2], np.float32)
    part = validation_part(texts, None, labels, share=0.1)
    assert part[100:102].sum() == 1
    assert not part[102]


def test_case_and_white_space_do_not_make_another_text() -> None:
    one, two = text_hashes(["A  film\t"], None), text_hashes(["a film"], None)
    assert one == two
    assert text_hashes(["a"], ["b"]) != text_hashes(["b"], ["a"])


def test_too_few_rows_are_refused_with_the_way_out() -> None:
    with pytest.raises(InputError, match=r"train\.tsv: 2 rows are too few .* --dev"):
        validation_part(["same", "Same "], None, None, share=0.5, where="train.tsv")
