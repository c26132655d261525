"""CSV files as spreadsheets and other programs write them: a line that names the delimiter, single quotes, lines."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import InputError
from shared.inputs.rows import SourceRow
from tests.unit.shared.inputs.test_tables import source_of, texts_of


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=;", "sep=;;"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_first_line_that_names_the_delimiter_is_not_the_header(
    tmp_path: Path, first: str, end: str, encoding: str
) -> None:
    path = tmp_path / "x.csv"
    lines = [first, "text;label", "a gripping, honest, film;1", '"a dull; slow story";0', "only, text;1"]
    path.write_bytes(end.join([*lines, ""]).encode(encoding))
    source = source_of(path, label_column="label")
    assert source.header.names == ("text", "label")
    rows = [(row.text_a, row.label) for row in source.rows() if isinstance(row, SourceRow)]
    assert rows == [("a gripping, honest, film", 1), ("a dull; slow story", 0), ("only, text", 1)]
    assert "sep=" in str(source.header.layouts[0])


def test_the_line_of_a_row_counts_the_one_that_names_the_delimiter(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("sep=\t\ntext\tlabel\na film\t1\ntoo\tmany\tcells\nb\t0\n")
    (bad,) = (row for row in source_of(path).rows() if not isinstance(row, SourceRow))
    assert bad.where == f"{path} line 4"
    path.write_text("sep=,\na film,1\nb,0\nc,1\n")
    assert texts_of(path, text_column=("0",), label_column="1") == ["a film", "b", "c"]
    assert texts_of(path, text_column=("0",), label_column="1", delimiter="comma") == ["a film", "b", "c"]


def test_a_table_whose_header_only_looks_like_such_a_line(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("sep=x,text\n1,a\n")
    assert texts_of(path) == ["a"]


@pytest.mark.parametrize(
    "content",
    [
        "text,label\n'a, b',1\n'it''s, well, fine',0\nplain,1\n",
        "'text','label'\n'a, b','1'\n'it''s, well, fine','0'\n'plain','1'\n",
        "text,label\n'a, b',1\n'it\\'s, well, fine',0\n'plain',1\n",
        "text;label\n'a, b';1\n'it''s, well, fine';0\n'plain';1\n",
    ],
)
def test_cells_in_single_quotes_are_read(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(content)
    source = source_of(path, label_column="label")
    rows = [(row.text_a, row.label) for row in source.rows() if isinstance(row, SourceRow)]
    assert rows == [("a, b", 1), ("it's, well, fine", 0), ("plain", 1)]
    assert "cells in single quotes" in str(source.header.layouts[0])


def test_single_quotes_around_every_text_are_no_part_of_it(tmp_path: Path) -> None:
    for name, delimiter in (("x.csv", ","), ("x.tsv", "\t")):
        (tmp_path / name).write_text(f"text{delimiter}label\n'a good film'{delimiter}1\n'a bad film'{delimiter}0\n")
        assert texts_of(tmp_path / name) == ["a good film", "a bad film"]


@pytest.mark.parametrize(
    "content",
    [
        "text,label\n'tis good,1\nthe actors' best,0\n'no' he said,1\n",
        "text,label\n\"'a, b'\",1\n'quoted',0\nplain,1\n",
        "text,label\n'quoted',1\nplain,0\n",
        "text,label\n'one, two', three,1\nplain,0\n",
        "text,label\n'',1\nit's,0\n",
    ],
)
def test_apostrophes_are_text(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(content)
    with path.open(newline="") as file:
        expected = [row[0] for row in csv.reader(file) if len(row) == 2][1:]
    rows = [row.text_a for row in source_of(path).rows() if isinstance(row, SourceRow)]
    assert rows == expected


words = st.text("ab\"', ;\né", min_size=1, max_size=8).filter(str.strip)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(st.lists(words, min_size=2, max_size=6), st.sampled_from(",;"))
def test_what_a_writer_puts_in_single_quotes_is_read_row_for_row(
    tmp_path: Path, texts: list[str], delimiter: str
) -> None:
    path = tmp_path / "x.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n", quotechar="'", quoting=csv.QUOTE_ALL)
        writer.writerows([["text", "y"], *([text, "1"] for text in texts)])
    assert texts_of(path) == texts


@pytest.mark.parametrize(
    "content",
    [
        "| text | label |\n|---|---|\n| a film | 1 |\n",
        "text | label\n:-- | --:\na film | 1\n",
        "| text |\n|:----:|\n| a film |\n",
        " text   | label \n--------+-------\n a film | 1\n(1 row)\n",
        "+--------+-------+\n| text   | label |\n+--------+-------+\n| a film |     1 |\n+--------+-------+\n",
        "+------+\r\n| text |\r\n+======+\r\n| a    |\r\n",
        "┌────────┬───────┐\n│ text   │ label │\n├────────┼───────┤\n│ a film │ 1     │\n",
    ],
)
def test_a_table_drawn_for_a_reader_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(content)
    with pytest.raises(InputError, match="save it as CSV"):
        source_of(path)


@pytest.mark.parametrize(
    "second",
    ["--|1", "a -- b|1", "---|+", "|--", "-|-", "a|--", f"{' ' * 200_000}x|1", f"{'-' * 200_000}{' ' * 200_000}x|1"],
)
def test_dashes_in_a_cell_are_text(tmp_path: Path, second: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"text|label\n{second}\nb|0\n")
    assert len(list(source_of(path, delimiter="bar").rows())) == 2
