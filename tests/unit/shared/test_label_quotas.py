"""N_a of each label: what is read, what is refused, and what a row gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InputError
from shared.label_quotas import LARGEST, LabelQuotas

NAMES = st.text(min_size=1, max_size=8)


@given(st.dictionaries(NAMES, st.integers(0, LARGEST), max_size=5))
def test_what_is_written_is_read(numbers: dict[str, int]) -> None:
    quotas = LabelQuotas(numbers)
    assert LabelQuotas.parse(quotas.options()) == quotas


@pytest.mark.parametrize("option", ["rare", "=3", "rare=", "rare=-1", "rare=1.5", "rare=10001", "rare=³", "rare= 3"])
def test_anything_else_is_refused_with_the_form(option: str) -> None:
    with pytest.raises(ValueError, match="write LABEL=N, with N from 0 to 10,000"):
        LabelQuotas.parse([option])


def test_a_label_has_one_number() -> None:
    with pytest.raises(ValueError, match="names rare twice"):
        LabelQuotas.parse(["rare=1", "rare=1"])


def test_a_label_counts_by_its_text_and_several_by_the_largest() -> None:
    quotas = LabelQuotas.parse(["1=7", "a=b=2", "sad=9"])
    labels = [1, "1", 1.0, "01", "a=b", None, ["sad", "a=b"], ["glad"], []]
    assert quotas.of_rows(labels, 5).tolist() == [7, 7, 7, 5, 2, 5, 9, 5, 5]
    assert (quotas.largest(5), quotas.largest(20)) == (9, 20)


def test_a_row_without_a_label_may_have_a_number_of_its_own() -> None:
    quotas = LabelQuotas.parse(["1=7"], 0)
    assert quotas.of_rows([1, None, "2", None], 5).tolist() == [7, 0, 5, 0]
    assert (quotas.largest(5), LabelQuotas.parse([], 30).largest(5)) == (7, 30)


def test_a_label_that_does_not_occur_is_named() -> None:
    quotas = LabelQuotas.parse(["1=7", "sad=9"])
    quotas.check_known([1.0, "sad", None, "glad"], "reviews.csv")
    with pytest.raises(InputError, match=r"reviews\.csv has no label 'sad'; its labels are 1, glad"):
        quotas.check_known([1, "glad"], "reviews.csv")
