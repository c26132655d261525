"""Corpora as people have them: text and tables, compressed, in any encoding; nothing is replaced silently."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.errors import InputError, UsageError
from trainer.data.corpus import read_lines

LINES = ["Ein schöner Film.", "第二行", "a third line"]
TEXT = "\n".join([LINES[0], "  ", LINES[1] + "  ", LINES[2]]) + "\n"


@pytest.mark.parametrize(
    ("name", "pack"), [("a.txt", bytes), ("a.txt.gz", gzip.compress), ("a.xz", lzma.compress), ("a.bz2", bz2.compress)]
)
def test_text_files(tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / name
    for content in (TEXT, "\ufeff" + TEXT, TEXT.replace("\n", "\r\n"), TEXT.rstrip("\n")):
        path.write_bytes(pack(content.encode()))
        assert list(read_lines(str(path))) == LINES


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.parquet", "a.jsonl.gz"])
@pytest.mark.parametrize("column", ["text", "body"])
def test_tables(tmp_path: Path, name: str, column: str) -> None:
    path = tmp_path / name
    rows = [{"n": 1, column: LINES[0]}, {"n": 2, column: f"{LINES[1]}\n \n{LINES[2]}"}]
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif ".jsonl" in name:
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    else:
        cut = "\t" if name.endswith("tsv") else ","
        body = "".join(f'{row["n"]}{cut}"{row[column]}"\n' for row in rows)
        path.write_text(f"n{cut}{column}\n{body}", encoding="utf-8")
    assert list(read_lines(str(path), "auto", column)) == LINES
    if column == "text" and name not in ("a.csv", "a.tsv"):
        assert list(read_lines(str(path))) == LINES
    elif name not in ("a.csv", "a.tsv"):
        with pytest.raises((InputError, UsageError), match="text"):
            list(read_lines(str(path)))


@pytest.mark.parametrize(
    ("encoding", "line"),
    [("cp1252", "Ein schöner Film"), ("gb18030", "第二行"), ("utf-16-le", "naïve"), ("cp1251", "фильм")],
)
def test_another_encoding_is_named_with_its_line_and_read_with_the_option(
    tmp_path: Path, encoding: str, line: str
) -> None:
    path = tmp_path / "corpus.txt"
    path.write_bytes(f"plain\n{line}\n".encode(encoding))
    with pytest.raises(InputError, match=r"--corpus .*corpus.txt.*(line 2: not UTF-8|UTF-16).*--encoding"):
        list(read_lines(str(path)))
    assert list(read_lines(str(path), encoding)) == ["plain", line]
    with pytest.raises(UsageError, match="--encoding klingon: unknown encoding"):
        list(read_lines(str(path), "klingon"))


def test_a_replacement_character_of_the_text_itself_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("a \ufffd b\n", encoding="utf-8")
    assert list(read_lines(str(path))) == ["a \ufffd b"]


def test_what_cannot_be_read_names_the_option_and_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--corpus .*none.txt"):
        list(read_lines(str(tmp_path / "none.txt")))
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(TEXT.encode() * 50)[:-9])
    with pytest.raises(InputError, match=r"--corpus .*cut.txt.gz"):
        list(read_lines(str(tmp_path / "cut.txt.gz")))
