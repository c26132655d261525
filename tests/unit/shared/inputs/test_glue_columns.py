"""Columns of GLUE files: by the names in the header of every split, never by position under another header."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InputError
from shared.glue import TASKS, get_task
from shared.inputs.options import InputOptions
from shared.inputs.sources import open_source

MNLI = "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse"
STS_B = "index genre filename year old_index source1 source2 sentence1 sentence2"
HEADERS = [
    ("CoLA", "index sentence", (1,), None),
    ("SST-2", "sentence label", (0,), 1),
    ("SST-2", "index sentence", (1,), None),
    ("MRPC", "Quality|#1 ID|#2 ID|#1 String|#2 String", (3, 4), 0),
    ("MRPC", "index|#1 ID|#2 ID|#1 String|#2 String", (3, 4), None),
    ("STS-B", f"{STS_B} score", (7, 8), 9),
    ("STS-B", STS_B, (7, 8), None),
    ("QQP", "id qid1 qid2 question1 question2 is_duplicate", (3, 4), 5),
    ("QQP", "id question1 question2", (1, 2), None),
    ("MNLI", f"{MNLI} sentence1 sentence2 label1 gold_label", (8, 9), 11),
    ("MNLI", f"{MNLI} sentence1 sentence2 label1 label2 label3 label4 label5 gold_label", (8, 9), 15),
    ("MNLI", f"{MNLI} sentence1 sentence2", (8, 9), None),
    ("MNLI", "index sentence1 sentence2", (1, 2), None),  # AX, the diagnostic set
    ("QNLI", "index question sentence label", (1, 2), 3),
    ("QNLI", "index question sentence", (1, 2), None),
    ("RTE", "index sentence1 sentence2 label", (1, 2), 3),
    ("WNLI", "index sentence1 sentence2", (1, 2), None),
]


def names_of(header: str) -> list[str]:
    return header.split("|" if "|" in header else " ")


@pytest.mark.parametrize(("task", "header", "texts", "label"), HEADERS)
def test_the_columns_of_every_split(task: str, header: str, texts: tuple[int, ...], label: int | None) -> None:
    names = names_of(header)
    assert get_task(task).find_columns("f.tsv", names) == (texts, label)
    if label is not None:
        # The label under another name: no other column may take its place.
        names[label] = "verdict"
        with pytest.raises(InputError, match=f"--task {task} needs"):
            get_task(task).find_columns("f.tsv", names)


@given(st.sampled_from(sorted(TASKS)), st.lists(st.sampled_from(["index", "label", "sentence", "x", "gold_label"])))
def test_a_label_is_only_ever_the_column_of_that_name(task: str, names: list[str]) -> None:
    try:
        _, label = get_task(task).find_columns("f.tsv", names)
    except InputError:
        return
    assert label is None or names[label] == get_task(task).label_name


def test_cola_has_no_header_but_in_its_test_file(tmp_path: Path) -> None:
    train, test = tmp_path / "train.tsv", tmp_path / "test.tsv"
    train.write_text("gj04\t1\t\tThe sailors rode.\ngj04\t0\t*\tThe sailors rides.\n")
    test.write_text("index\tsentence\n0\tBill whistled past the house.\n")
    cola = get_task("CoLA")
    labelled = list(open_source(InputOptions(input=(str(train),), task=cola)).rows())
    unlabelled = list(open_source(InputOptions(input=(str(test),), task=cola)).rows())
    assert [(row.text_a, row.label) for row in labelled] == [("The sailors rode.", 1), ("The sailors rides.", 0)]  # type: ignore[union-attr]
    assert [(row.text_a, row.label) for row in unlabelled] == [("Bill whistled past the house.", None)]  # type: ignore[union-attr]


def test_the_index_of_an_unlabelled_file_is_no_label(tmp_path: Path) -> None:
    path = tmp_path / "test.tsv"
    path.write_text("index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\tone\ttwo\n1\t3\t4\tthree\tfour\n")
    rows = list(open_source(InputOptions(input=(str(path),), task=get_task("MRPC"))).rows())
    assert [row.label for row in rows] == [None, None]  # type: ignore[union-attr]
