"""What is said about a table that cannot be read says how to mend it."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.errors import InputError
from tests.unit.shared.inputs.test_tables import source_of

ROWS = "".join(f"a film no. {number},{number % 2}\n" for number in range(30))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.xlsx", "", r"unknown file type \(save the sheet as CSV, in UTF-8\); known types are"),
        ("x.ods", "", r"unknown file type \(save the sheet as CSV, in UTF-8\)"),
        ("x.txt", "text,label\n" + ROWS, r"unknown file type \(give it the suffix .csv or .tsv if it is a table"),
        (
            "x.csv",
            "text , label\n" + ROWS,
            "x.csv: --text-column text: no such column; the input has the columns 'text ', ' label' ",
        ),
        (
            "x.csv",
            "Text,label\n" + ROWS,
            "x.csv: --text-column text: no such column; the input has the columns Text, label ",
        ),
        ("x.jsonl", "text,label\n" + ROWS, "no line contains a JSON object; line 1: not valid JSON: Exp"),
        (
            "x.jsonl",
            "{'text': 'a'}\n{'text': 'b'}\n",
            "line 1: not valid JSON: Expecting property name",
        ),
        (
            "x.csv",
            "Export of 2026\n\ntext,label\n" + ROWS,
            "first line has 1 column, but most others have 2. Remove any lines above the header",
        ),
        ("x.csv", "text,label\n" + ROWS.replace("film", "film,x,"), "first line has 2 columns, but most others have 4"),
        ("x.tsv", "text\tlabel\n" + "1\ta film\t0\n" * 30, "first line has 2 columns, but most others have 3"),
    ],
)
def test_a_file_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(content)
    with pytest.raises(InputError, match=message):
        source_of(Path(name))


def test_rows_of_other_widths_are_set_aside_while_most_fit(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("text,label\n" + ROWS + "a film, really,1\n" * 20)
    assert len(list(source_of(path).rows())) == 50
