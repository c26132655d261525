"""Every input format, and every kind of bad input: one clear line, or a quarantined row with its reason."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augment_service.config import RunConfig
from shared.errors import InputError, UsageError
from shared.inputs.csv_records import read_csv
from shared.inputs.options import from_config
from shared.inputs.rows import QuarantinedRow, SourceRow
from shared.inputs.sources import open_source


def read(*inputs: Path, **options: Any) -> tuple[list[SourceRow], list[QuarantinedRow]]:
    """Rows and quarantined rows of an input."""
    values: dict[str, Any] = {"input": [str(one) for one in inputs], "output": "unused", "text_column": ["text"]}
    items = list(open_source(from_config(RunConfig.build(values | options))).rows())
    kept = [item for item in items if isinstance(item, SourceRow)]
    left_out = [item for item in items if isinstance(item, QuarantinedRow)]
    return kept, left_out


ROWS = [{"text": "one, two", "y": 1}, {"text": 'a "quoted" word', "y": 0}, {"text": "漢字 😀", "y": 1}]


def write_as(form: str, folder: Path) -> Path:
    path = folder / f"data.{form}"
    table = pa.Table.from_pylist(ROWS)
    if form == "parquet":
        pq.write_table(table, path)
    elif form == "arrow":
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)
    elif form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    elif form == "csv":
        path.write_text('text,y\r\n"one, two",1\r\n"a ""quoted"" word",0\r\n漢字 😀,1\r\n', encoding="utf-8-sig")
    else:
        path.write_text('text\ty\none, two\t1\na "quoted" word\t0\n漢字 😀\t1\n', encoding="utf-8")
    return path


@pytest.mark.parametrize("form", ["tsv", "csv", "jsonl", "parquet", "arrow"])
def test_every_format_gives_the_same_rows(form: str, tmp_path: Path) -> None:
    rows, left_out = read(write_as(form, tmp_path), label_column="y")
    assert [(row.source_id, row.text_a, row.label) for row in rows] == [
        (number, row["text"], row["y"]) for number, row in enumerate(ROWS)
    ]
    assert left_out == []


def test_a_csv_cell_may_contain_line_breaks(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('text,y\n"first\nsecond",1\nlast,2\n', encoding="utf-8")
    assert [row.text_a for row in read(path)[0]] == ["first\nsecond", "last"]


def test_bad_rows_are_quarantined_with_position_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    lines = [
        b"text\ty",
        b"fine\t1",
        b"broken \xff\xfe\t1",
        b"nul\x00byte\t1",
        b"\t1",
        b"   \t1",
        b"no label\t",
        b"one column",
        b"",
        b"... !!!\t1",
        "\U0001f600 \u0645\u0631\u062d\u0628\u0627 \u4f60\u597d\t0".encode(),
        b"x" * 1_000_001 + b"\t1",
        b'un"balanced\t1',
    ]
    path.write_bytes(b"\n".join(lines) + b"\n")
    rows, left_out = read(path, label_column="y")
    assert [row.text_a[:12] for row in rows] == ["fine", "... !!!", "😀 مرحبا 你好", 'un"balanced']
    assert [(one.position, one.reason.partition(":")[2] or one.reason) for one in left_out] == [
        (1, " invalid start byte at byte 7; set another encoding with --encoding, such as cp1252"),
        (2, " contains a NUL byte"),
        (3, " empty text"),
        (4, " empty text"),
        (5, " the label is missing"),
        (6, "1 columns, 2 expected"),
        (7, "empty line"),
        (10, " 1000001 characters, more than --max-characters 100000"),
    ]
    assert left_out[0].where == f"{path} line 3"
    assert left_out[0].raw == "broken \\xff\\xfe\t1"


def test_several_files_form_one_input(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.tsv").write_text(f"text\n{name}1\n{name}2\n", encoding="utf-8")
    expected = ["a1", "a2", "b1", "b2"]
    assert [row.text_a for row in read(tmp_path)[0]] == expected
    assert [row.text_a for row in read(tmp_path / "*.tsv")[0]] == expected
    (tmp_path / "c.tsv").write_text("other\nx\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"c.tsv lacks a required column: it has other; .*a.tsv has text"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("x.tsv", b"", {}, "is empty"),
        ("x.tsv", b"text\n", {}, "no rows"),
        ("x.tsv", b"text\n\xff\n", {}, "none of 1 rows can be used"),
        ("x.tsv", b"sentence\nx\n", {}, "--text-column text: no such column; the input has the columns sentence"),
        (
            "x.tsv",
            b"text\nx\n",
            {"label_column": "y"},
            "--label-column y: no such column; the input has the columns text",
        ),
        ("x.tsv", b"text\tid\nx\t1\ny\t1\n", {"id_column": "id"}, "the id 1 occurs twice"),
        ("x.doc", b"text", {}, "unknown file type"),
        ("x.parquet", b"no parquet", {}, "x.parquet: "),
        ("x.arrow", b"no arrow at all", {}, "x.arrow: "),
        ("x.jsonl", b"[1]\n", {}, "no line contains a JSON object"),
        ("x.tsv", "text\nx\n".encode("utf-16-le"), {}, "is UTF-16 or binary; set its encoding"),
        ("x.csv", b"te\x00xt\nx\n", {}, "is UTF-16 or binary"),
        ("x.tsv", b"text\ty\rgood\t1\rbad\t0\r", {}, "lines end in carriage returns"),
        ("x.csv", b'text,"y\ngood,1\n', {}, "x.csv line 1: a quote is never closed"),
        ("x.tsv", b"text\nx\n", {"text_column": (), "task": "MRPC"}, "1 columns (text), but --task MRPC needs columns"),
    ],
)
def test_unusable_input_gives_one_clear_line(
    tmp_path: Path, name: str, content: bytes, options: dict[str, Any], message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read(path, **options)
    assert message in str(caught.value)
    assert str(path) in str(caught.value) or "--" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_misplaced_quote_costs_one_line_and_not_the_rows_after_it(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    lines = [
        "text,y",
        '"never closed,1',
        "fine,0",
        '"lines\nin, cells",1',
        '"closed" late,1',
        '"also ""fine""",0',
        '"open',
    ]
    path.write_text("\r\n".join(lines) + "\r\n", encoding="utf-8")
    rows, left_out = read(path)
    assert [(row.source_id, row.text_a) for row in rows] == [(1, "fine"), (2, "lines\nin, cells"), (4, 'also "fine"')]
    assert [(one.position, one.where.rpartition(" ")[2], one.raw) for one in left_out] == [
        (0, "2", lines[1]),
        (3, "6", lines[4]),
        (5, "8", lines[6]),
    ]
    assert all("a quote is never closed" in one.reason for one in left_out)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.lists(st.text("ab\"', \né", max_size=4), min_size=2, max_size=2), max_size=6))
def test_the_output_of_a_csv_writer_is_read_back(rows: list[list[str]]) -> None:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(rows)
    lines = io.TextIOWrapper(io.BytesIO(written.getvalue().encode()), encoding="utf-8", newline="")
    assert [list(one.cells or ()) for one in read_csv(lines)] == rows


@settings(deadline=None, max_examples=300)
@given(st.text('ab,"\n', max_size=30))
def test_in_any_csv_every_line_belongs_to_exactly_one_record(text: str) -> None:
    records = list(read_csv(io.StringIO(text, newline="")))
    assert [one for one in text.split("\n") if one] == [
        line for record in records for line in record.raw.split("\n") if line
    ]


def test_columns_with_the_same_name_or_role_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("text\ty\ngood\t1\n", encoding="utf-8")
    for options in ({"text_column": ["text", "0"]}, {"label_column": "text"}, {"id_column": "text"}):
        with pytest.raises(UsageError, match="column text is already the first --text-column"):
            read(path, **options)
    twice = pa.table([pa.array(["x"]), pa.array(["y"])], names=["text", "text"])
    with pa.ipc.new_file(tmp_path / "x.arrow", twice.schema) as writer:
        writer.write_table(twice)
    with pytest.raises(InputError, match="two columns have the same name"):
        read(tmp_path / "x.arrow")


def test_files_whose_types_differ_are_rejected(tmp_path: Path) -> None:
    for name, label in (("a", 1), ("b", "one")):
        pq.write_table(pa.table({"text": ["x"], "y": [label]}), tmp_path / f"{name}.parquet")
    with pytest.raises(
        InputError, match=r"b.parquet: column types do not match: it has text \(string\), y \(string\); .*y \(int64\)"
    ):
        read(tmp_path)


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (["1", "-2"], pa.int64()),
        (["1", "2.5"], pa.float64()),
        (["1", "9" * 5000], pa.string()),
        (["1", "9" * 30], pa.string()),
        (["--1"], pa.string()),
        (["1_000"], pa.string()),
        (["nan"], pa.string()),
        (["\u0661"], pa.string()),
    ],
)
def test_odd_labels_get_a_type_that_can_hold_them(tmp_path: Path, labels: list[str], kind: pa.DataType) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("text\ty\n" + "".join(f"good\t{one}\n" for one in labels), encoding="utf-8")
    config = RunConfig.build({"input": [str(path)], "output": "o", "text_column": ["text"], "label_column": "y"})
    source = open_source(from_config(config))
    assert source.label_type == kind
    labels_read = [item.label for item in source.rows() if isinstance(item, SourceRow)]
    assert pa.array(labels_read, kind).null_count == 0
    assert len(labels_read) == len(labels)


def test_ids_that_do_not_fit_int64_are_quarantined(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text(f"text\tid\na\t-5\nb\t{'9' * 20}\nc\t1_0\nd\t7\n", encoding="utf-8")
    rows, left_out = read(path, id_column="id")
    assert [row.source_id for row in rows] == [-5, 7]
    assert [one.position for one in left_out] == [1, 2]


def test_a_column_that_first_appears_in_a_late_json_line_is_copied(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    lines = [{"text": f"row {number}"} for number in range(200)] + [{"text": "last", "late": {"a": 1}}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert read(path)[0][-1].rest == ('{"a": 1}',)


def test_labels_that_do_not_belong_to_the_task_are_quarantined(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("sentence\tlabel\ngood\t1\nbad\t7\n", encoding="utf-8")
    rows, left_out = read(path, text_column=(), task="SST-2")
    assert [row.label for row in rows] == [1]
    assert [one.reason for one in left_out] == ["label '7' is not one of the labels of SST-2: 0, 1"]
    header, cells = "a\tb\t" * 3 + "c\tsentence1\tsentence2\tscore\n", "x\ty\t" * 4
    path.write_text(f"{header}{cells}z\thigh\n{cells}z\t2.5\n")
    rows, left_out = read(path, text_column=(), task="STS-B")
    assert [row.label for row in rows] == [2.5]
    assert [one.reason for one in left_out] == ["label 'high' is not a number"]


def test_options_are_taken_from_a_configuration_and_can_be_overridden() -> None:
    config = RunConfig.build({"input": ["a.tsv"], "output": "o", "task": "mrpc", "limit": 3})
    options = from_config(config, input=("b.tsv",))
    assert (options.input, options.limit, options.max_characters) == (("b.tsv",), 3, 100_000)
    assert options.task is not None
    assert options.task.name == "MRPC"
    with pytest.raises(UsageError, match="GLUE: unknown"):
        from_config(RunConfig.build({"input": ["a.tsv"], "output": "o", "task": "GLUE"}))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone.tsv: no such file"):
        read(tmp_path / "gone.tsv")


@pytest.mark.golden
def test_no_row_of_the_awkward_files_is_lost(data_dir: Path) -> None:
    for path in sorted((data_dir / "awkward").iterdir()):
        if path.suffix not in (".tsv", ".csv"):
            continue
        rows, left_out = read(path, text_column=["0"])
        places = sorted([row.source_id for row in rows] + [one.position for one in left_out])
        assert places == list(range(len(places)))
        assert all(one.reason and one.where for one in left_out)


@pytest.mark.golden
@pytest.mark.parametrize("task", ["CoLA", "MRPC", "SST-2", "STS-B"])
def test_every_row_of_the_glue_tasks_is_read(data_dir: Path, task: str) -> None:
    path = data_dir / "glue" / task / "dev.tsv"
    rows, left_out = read(path, text_column=(), task=task)
    num_lines = len(path.read_bytes().removesuffix(b"\n").split(b"\n")) - (task != "CoLA")
    assert len(rows) + len(left_out) == num_lines
    assert len(left_out) <= 0.001 * num_lines
    assert all((row.text_b is not None) == (task in ("MRPC", "STS-B")) for row in rows)
