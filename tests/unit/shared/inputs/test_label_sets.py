"""Several labels per row: a list, a text that names them, or a column of 0 and 1 for each label."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InputError, UsageError
from shared.glue import get_task
from shared.inputs.label_sets import LabelSetError, labels_of_cell, labels_of_columns
from shared.inputs.options import InputOptions
from shared.inputs.rows import QuarantinedRow, SourceRow
from shared.inputs.sources import Source, open_source

NAMES = ("toxic", "rude", "threat")
SETS = [["toxic"], [], ["rude", "toxic"], ["threat"]]


def source_of(path: Path, **options: Any) -> Source:
    return open_source(InputOptions(**{"input": (str(path),), "text_column": ("text",)} | options))


def labels_of(source: Source) -> list[Any]:
    return [item.label if isinstance(item, SourceRow) else item.reason for item in source.rows()]


def write_jsonl(path: Path, cells: list[Any]) -> Path:
    lines = [json.dumps({"text": f"text {place}", "y": cell}) for place, cell in enumerate(cells)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def test_the_forms_give_the_same_labels(tmp_path: Path) -> None:
    forms = {
        "lists.jsonl": source_of(write_jsonl(tmp_path / "lists.jsonl", SETS), label_column="y"),
        "named as sets": source_of(tmp_path / "lists.jsonl", multi_label=("y",)),
    }
    pq.write_table(
        pa.table({"text": ["a", "b", "c", "d"], "y": pa.array(SETS, pa.large_list(pa.large_string()))}),
        tmp_path / "lists.parquet",
    )
    forms["lists.parquet"] = source_of(tmp_path / "lists.parquet", label_column="y")
    for name, separator in (("comma.csv", ","), ("bar.csv", "|")):
        rows = [[f"text {place}", separator.join(one)] for place, one in enumerate(SETS)]
        path = write_csv(tmp_path / name, ["text", "y"], rows)
        forms[name] = source_of(path, multi_label=("y",), label_separator=separator)
    for name, write in (("json.csv", json.dumps), ("python.csv", repr)):
        path = write_csv(tmp_path / name, ["text", "y"], [[f"text {i}", write(one)] for i, one in enumerate(SETS)])
        forms[name] = source_of(path, multi_label=("y",))
    flags = [[f"text {place}", *(int(name in one) for name in NAMES)] for place, one in enumerate(SETS)]
    forms["flags.csv"] = source_of(write_csv(tmp_path / "flags.csv", ["text", *NAMES], flags), multi_label=NAMES)
    for name, source in forms.items():
        assert [sorted(one) for one in labels_of(source)] == [sorted(one) for one in SETS], name
        assert source.label_type == pa.list_(pa.string()), name
    assert forms["flags.csv"].columns.label_set_names == NAMES


def test_an_empty_list_is_a_row_and_a_missing_one_is_set_aside(tmp_path: Path) -> None:
    cells = [[], None, ["a", None], [["a"]], ["a", "a"], [1, "1", "b"]]
    assert labels_of(source_of(write_jsonl(tmp_path / "x.jsonl", cells), label_column="y")) == [
        [],
        "column y: the label is missing",
        "column y: a label in the list is missing",
        "column y: a label in the list is neither text nor a number: ['a']",
        ["a"],
        ["1", "b"],
    ]


def test_flags_other_than_0_and_1_are_set_aside(tmp_path: Path) -> None:
    rows = [["a", "1", "0"], ["b", "yes", "TRUE"], ["c", "", "1"], ["d", "2", "1"], ["e", "0.0", "1.0"]]
    source = source_of(write_csv(tmp_path / "x.csv", ["text", "p", "q"], rows), multi_label=("p", "q"))
    assert labels_of(source) == [
        ["p"],
        ["p", "q"],
        "column p: the label is missing",
        "column p: '2' is not 0 or 1 (--multi-label)",
        ["q"],
    ]


def test_lists_of_class_numbers_become_names(tmp_path: Path) -> None:
    for number, feature in enumerate(
        ({"feature": {"names": list(NAMES), "_type": "ClassLabel"}, "_type": "List"}, [{"names": list(NAMES)}])
    ):
        meta = {"huggingface": json.dumps({"info": {"features": {"y": feature}}})}
        table = pa.table({"text": ["a", "b", "c"], "y": [[0, 2], [], [7]]}).replace_schema_metadata(meta)
        pq.write_table(table, tmp_path / f"{number}.parquet")
        assert labels_of(source_of(tmp_path / f"{number}.parquet", label_column="y")) == [
            ["toxic", "threat"],
            [],
            "column y: label 7 in the list is not the index of a class",
        ]


def test_what_is_not_several_labels_is_refused_in_one_line(tmp_path: Path) -> None:
    mixed = write_jsonl(tmp_path / "mixed.jsonl", [["a"], "b"])
    with pytest.raises(InputError, match="lists of labels in some rows and single labels in others"):
        source_of(mixed, label_column="y")
    with pytest.raises(InputError, match="column y contains objects, not labels"):
        source_of(write_jsonl(tmp_path / "x.jsonl", [{"a": 1}]), label_column="y")
    with pytest.raises(UsageError, match="--multi-label already names the label columns: remove --label-column"):
        source_of(mixed, label_column="y", multi_label=("y",))
    with pytest.raises(InputError, match="column y contains lists of labels, but SST-2 has one label per row"):
        source_of(write_jsonl(tmp_path / "z.jsonl", [["a"]]), label_column="y", task=get_task("SST-2"))
    with pytest.raises(InputError, match="--multi-label p: no such column; the input has the columns text, y"):
        source_of(mixed, multi_label=("p",))


def test_a_vector_of_0_and_1_is_not_taken_for_the_names_of_labels(tmp_path: Path) -> None:
    reason = "column y: a vector of 0 and 1, not label names; use one column per label (--multi-label)"
    cells = [[1, 0, 0], [0.0, 1.0, 1.0], [True, False, True], ["x"], ["0", "x", "0"]]
    assert labels_of(source_of(write_jsonl(tmp_path / "x.jsonl", cells), label_column="y")) == [
        *[reason] * 3,
        ["x"],
        ["0", "x"],
    ]
    path = write_csv(tmp_path / "x.csv", ["text", "y"], [["a", "[1, 0, 1]"], ["b", "0,0,1"], ["c", "p,q"]])
    assert labels_of(source_of(path, multi_label=("y",))) == [reason, reason, ["p", "q"]]


def test_a_column_has_one_role(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", ["text", "other", "p", "q"], [["a", "b", "1", "0"]])
    for options in (
        {"multi_label": ("p", "q", "p")},
        {"multi_label": ("p", "q", "2")},
        {"multi_label": ("p", "q"), "text_column": ("text", "p")},
        {"multi_label": ("p", "q"), "id_column": "p"},
    ):
        with pytest.raises(UsageError, match="--multi-label: column p is used twice"):
            source_of(path, **options)


def test_a_separator_needs_a_column_to_separate(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", ["text", "y"], [["a", "p|q"]])
    with pytest.raises(UsageError, match=r"--label-separator applies only to the column of --multi-label"):
        source_of(path, label_column="y", label_separator="|")
    assert labels_of(source_of(path, multi_label=("y",), label_separator="|")) == [["p", "q"]]


def test_lists_that_numpy_printed_are_not_read_as_one_label() -> None:
    with pytest.raises(LabelSetError, match="is not a list of labels"):
        labels_of_cell("['a' 'b']", (), ",")


@given(st.text(max_size=30), st.sampled_from([",", "|", "; "]))
def test_any_text_is_labels_or_a_reason(text: str, separator: str) -> None:
    try:
        found = labels_of_cell(text, (), separator)
    except LabelSetError:
        assert "[" in text or set(text) <= set("01truefalsTRUEFALS,|; ")
    else:
        assert len(set(found)) == len(found)
        assert all(isinstance(one, str) for one in found)


@given(st.lists(st.sampled_from([0, 1, 0.0, 1.0, True, False, "0", "1", "x", None]), min_size=2, max_size=2))
def test_flags_are_read_by_their_value(cells: list[Any]) -> None:
    try:
        found = labels_of_columns(cells, ("p", "q"))
    except LabelSetError:
        assert "x" in cells or None in cells
    else:
        assert found == [name for name, cell in zip(("p", "q"), cells, strict=True) if float(cell) == 1]


def test_a_source_that_is_only_copied_keeps_its_lists(tmp_path: Path) -> None:
    source = source_of(write_jsonl(tmp_path / "x.jsonl", SETS))
    assert not source.columns.has_label
    assert not any(isinstance(item, QuarantinedRow) for item in source.rows())


def test_rows_without_a_label_are_kept_where_asked(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "x.jsonl", [["a"], None, []])
    assert labels_of(source_of(path, label_column="y", missing_labels="keep")) == [["a"], None, []]
    csv_file = write_csv(tmp_path / "x.csv", ["text", "y"], [["a", "1"], ["b", ""], ["c", "2"]])
    kept = source_of(csv_file, label_column="y", missing_labels="keep")
    assert labels_of(kept) == [1, None, 2]
    assert kept.label_type == pa.int64()
    assert labels_of(source_of(csv_file, label_column="y")) == [1, "column y: the label is missing", 2]
