"""The split of `trainer distill`: equal texts on one side, and a longer file keeps the split of the shorter."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.split import text_hashes
from trainer.pipeline.parts import DEV, TEST, TRAIN, assign_parts, limited

TEXTS = st.lists(st.text("abcdefgh ", min_size=1, max_size=4), min_size=1, max_size=60)


def parts_of(texts: list[str], classes: list[int]) -> dict[str, set[int]]:
    assigned = assign_parts(text_hashes(texts, None), np.asarray(classes, np.int64), 0.1, 0.1)
    found: dict[str, set[int]] = {}
    for text, part in zip(texts, assigned.tolist(), strict=True):
        found.setdefault(" ".join(text.split()), set()).add(part)
    return found


@given(TEXTS, st.randoms(use_true_random=False))
def test_equal_texts_are_on_one_side_in_any_order(texts: list[str], rng: np.random.Generator) -> None:
    classes = [len(text) % 3 for text in texts]
    first = parts_of(texts, classes)
    assert all(len(sides) == 1 for sides in first.values())
    pairs = list(zip(texts, classes, strict=True))
    rng.shuffle(pairs)
    assert parts_of([text for text, _ in pairs], [one for _, one in pairs]) == first


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=40, max_size=80))
def test_each_of_several_labels_is_in_every_part_if_it_has_texts_enough(rows: list[list[bool]]) -> None:
    hashes = text_hashes([f"text number {index}" for index in range(len(rows))], None)
    members = np.asarray(rows, np.bool_)
    parts = assign_parts(hashes, members, 0.1, 0.1)
    for own in members.T:
        # Those that other labels had to give count for this one, too.
        if own.sum() >= 10 and (parts[own] == TRAIN).sum() > 1:
            assert {DEV, TEST} <= set(parts[own].tolist())


def test_a_longer_file_keeps_its_split_and_each_class_gives_its_share() -> None:
    texts = [f"text number {index}" for index in range(5000)]
    classes = np.asarray([index % 4 for index in range(5000)], np.int64)
    hashes = text_hashes(texts, None)
    longer = assign_parts(hashes, classes, 0.1, 0.1)
    shorter = assign_parts(hashes[:2000], classes[:2000], 0.1, 0.1)
    assert (longer[:2000] == shorter).all()
    for one in range(4):
        own = longer[classes == one]
        for part, share in ((TRAIN, 0.8), (DEV, 0.1), (TEST, 0.1)):
            assert abs((own == part).mean() - share) < 0.03


def test_a_small_class_is_in_every_part() -> None:
    texts = [f"text number {index}" for index in range(1000)]
    classes = np.asarray([int(index >= 992) for index in range(1000)], np.int64)
    parts = assign_parts(text_hashes(texts, None), classes, 0.1, 0.1)
    assert set(parts[classes == 1].tolist()) == {TRAIN, DEV, TEST}


def test_the_dev_part_has_a_maximum_and_a_given_file_needs_none() -> None:
    hashes = text_hashes([f"text number {index}" for index in range(1000)], None)
    classes = np.zeros(1000, np.int64)
    parts = assign_parts(hashes, classes, 0.1, 0.1)
    fewer = limited(parts, hashes, maximum=50)
    assert ((fewer == DEV).sum(), (fewer == TEST).sum()) == (50, (parts == TEST).sum())
    assert set(assign_parts(hashes, classes, 0.0, 0.1).tolist()) == {TRAIN, TEST}
