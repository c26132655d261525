"""Texts of --data in `trainer export` and `report`: files of lines in any encoding that is named or marked."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from shared.errors import ExpectedError
from trainer.export.config import TextsConfig
from trainer.export.sample_inputs import read_texts

LINES = ["ein schöner Film", "naïve", "plain"]


def texts_of(path: Path, **options: str) -> list[str]:
    return [first for first, _ in read_texts(TextsConfig.build({"data": str(path), **options}), 10)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_marked_and_plain_unicode_is_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes("\n\n".join(LINES).encode(encoding))
    assert texts_of(path) == LINES
    packed = tmp_path / "lines.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert texts_of(packed) == LINES


def test_another_encoding_is_named_or_refused_never_guessed(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes("\n".join(LINES).encode("cp1252"))
    assert texts_of(path, encoding="cp1252") == LINES
    with pytest.raises(ExpectedError, match=r"lines.txt is not valid utf-8; .*--encoding"):
        texts_of(path)
    with pytest.raises(ExpectedError, match="--encoding klingon: unknown encoding"):
        texts_of(path, encoding="klingon")


def test_a_table_under_the_name_of_a_text_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(ExpectedError, match="Parquet"):
        texts_of(path)
