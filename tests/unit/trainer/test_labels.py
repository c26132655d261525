"""Which output of a model is which label: by name, whatever the order, or refused."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ModelError, UsageError
from trainer.data.tasks import TaskSpec
from trainer.labels import find_label, match_outputs, parse_label_map, renamed

MNLI = ("contradiction", "entailment", "neutral")
QNLI = ("entailment", "not_entailment")


@given(st.permutations(MNLI), st.sampled_from([str.upper, str.title, lambda name: f" {name}-"]))
def test_names_in_any_order_and_case_keep_their_order(order: list[str], spelt: object) -> None:
    assert callable(spelt)
    assert match_outputs("MNLI", [spelt(name) for name in order], MNLI, "t") == tuple(order)


def test_names_that_were_inverted_before() -> None:
    assert match_outputs("QNLI", ["NOT_ENTAILMENT", "ENTAILMENT"], QNLI, "t") == ("not_entailment", "entailment")
    assert match_outputs("RTE", ["not entailment", "Entailment"], QNLI, "t") == ("not_entailment", "entailment")
    assert match_outputs("SST-2", ["POSITIVE", "NEGATIVE"], ("0", "1"), "t") == ("1", "0")


def test_generic_names_are_class_numbers_only_where_the_labels_are_numbers() -> None:
    assert match_outputs("SST-2", ["LABEL_0", "LABEL_1"], ("0", "1"), "t") == ("0", "1")
    with pytest.raises(ModelError, match="--label-map, such as LABEL_0=contradiction,LABEL_1=entailment"):
        match_outputs("MNLI", ["LABEL_0", "LABEL_1", "LABEL_2"], MNLI, "t")
    with pytest.raises(ModelError, match="do not show which is which"):
        match_outputs("SST-2", ["LABEL_1", "LABEL_0"], ("0", "1"), "t")


def test_other_names_are_refused_and_mended_by_a_map() -> None:
    outputs = ("no", "yes", "maybe")
    with pytest.raises(ModelError, match="--teacher t has the classes no, yes, maybe"):
        match_outputs("MNLI", outputs, MNLI, "--teacher t")
    for order in itertools.permutations(MNLI):
        text = ",".join(f"{name}={label}" for name, label in zip(outputs, order, strict=True))
        assert match_outputs("MNLI", renamed(outputs, text, "m"), MNLI, "t") == order


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no", "write NAME=LABEL"),
        ("no=", "write NAME=LABEL"),
        ("no=a,NO=b", "occurs twice"),
        ("never=a", "has no class never"),
        ("no=yes", "would get the same label"),
    ],
)
def test_a_wrong_map_is_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        renamed(("no", "yes"), text, "--teacher t")


def test_an_empty_map_changes_nothing() -> None:
    assert parse_label_map(None) == {}
    assert renamed(("no", "yes"), None, "--teacher t") == ("no", "yes")


def test_labels_of_own_data() -> None:
    assert find_label(("POSITIVE", "NEGATIVE"), "negative") == 1
    assert find_label(("LABEL_0", "LABEL_1"), "1") == 1
    assert find_label(("LABEL_0", "LABEL_1"), "2") is None
    assert find_label(("1", "0"), "1") == 0  # by text, before any number
    assert find_label(("A", "a"), "a") == 1
    assert find_label(("A-", "a"), "A") is None
    spec = TaskSpec(name="t", labels=("LABEL_0", "LABEL_1"), metrics=("accuracy",))
    assert spec.encode_label(1, "f row 0") == 1.0


def test_a_sign_and_what_divides_numbers_are_part_of_a_name() -> None:
    assert find_label(("0", "1"), "-1") is None
    assert find_label(("-1", "1"), " -1 ") == 0
    assert find_label(("1-2", "3-4"), "12") is None
    assert find_label(("2020-01-01", "other"), "20200101") is None
    assert find_label(("10 - 19", "20 - 29"), "10-19") == 0
    assert find_label(("label-1", "label 2"), "LABEL_1") == 0
    assert renamed(("-1", "1"), "-1=bad,1=good", "--teacher t") == ("bad", "good")


def test_two_classes_of_one_name_are_refused_as_the_model_s_fault() -> None:
    with pytest.raises(ModelError, match="--teacher t: two of its classes have the same name: good, good"):
        renamed(("good", "good"), None, "--teacher t")
