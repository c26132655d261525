"""g(m)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import UsageError
from trainer.mapping import map_layers


@pytest.mark.parametrize(
    ("strategy", "student", "teacher", "expected"),
    [
        ("uniform", 4, 12, (3, 6, 9, 12)),
        ("uniform", 6, 12, (2, 4, 6, 8, 10, 12)),
        ("uniform", 4, 6, (2, 3, 5, 6)),
        ("top", 4, 12, (9, 10, 11, 12)),
        ("bottom", 4, 12, (1, 2, 3, 4)),
        ("1,1,12", 3, 12, (1, 1, 12)),
    ],
)
def test_the_paper_s_layers(strategy: str, student: int, teacher: int, expected: tuple[int, ...]) -> None:
    assert map_layers(strategy, student, teacher) == expected


@given(student=st.integers(1, 24), extra=st.integers(0, 24))
def test_uniform_rises_and_ends_at_the_last_layer(student: int, extra: int) -> None:
    mapping = map_layers("uniform", student, student + extra)
    assert list(mapping) == sorted(set(mapping))
    assert mapping[-1] == student + extra
    assert mapping[0] >= 1


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("uniform", "more than its teacher"),
        ("3,6", "lists 2 layers, but the student has 3"),
        ("1,2,9", "from 1 to 2 in ascending order"),
        ("2,1,1", "in ascending order"),
        ("a,b", "or layers such as"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(strategy: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        map_layers(strategy, 3, 2)
