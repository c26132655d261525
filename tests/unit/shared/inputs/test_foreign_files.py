"""Files that are not what their names say are read where that is certain, or named in one line."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.errors import InputError
from tests.unit.shared.inputs.test_tables import source_of, texts_of

CSV = b"text,label\na good film,1\na bad film,0\n"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
PAGE = b'\n<!DOCTYPE html>\n<html lang="en"><head><title>Sign in, please</title></head>\n<body>text</body></html>\n'


def zipped(**members: bytes) -> bytes:
    with zipfile.ZipFile(sink := io.BytesIO(), "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return sink.getvalue()


def parquet() -> bytes:
    pq.write_table(pa.table({"text": ["a good film"], "label": [1]}), sink := io.BytesIO())
    return sink.getvalue()


def tar() -> bytes:
    with tarfile.open(fileobj=(sink := io.BytesIO()), mode="w") as archive:
        member = tarfile.TarInfo("x.csv")
        member.size = len(CSV)
        archive.addfile(member, io.BytesIO(CSV))
    return sink.getvalue()


def arrow() -> bytes:
    table = pa.table({"text": ["a good film"]})
    with pa.ipc.new_file(sink := io.BytesIO(), table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


SHEET = {"docProps__app.xml": b"<x/>", "xl__workbook.xml": b"<x/>"}


@pytest.mark.parametrize("kind", ["gzip", "bz2", "xz", "zstd"])
@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.csv.xz"])
def test_what_is_compressed_is_told_by_the_content(tmp_path: Path, kind: str, name: str) -> None:
    content = {
        "gzip": gzip.compress(CSV),
        "bz2": bz2.compress(CSV),
        "xz": lzma.compress(CSV),
        "zstd": pa.compress(CSV, "zstd", asbytes=True),
    }[kind]
    (tmp_path / name).write_bytes(content)
    assert texts_of(tmp_path / name, label_column="label") == ["a good film", "a bad film"]


def test_a_compressed_parquet_file_without_the_suffix_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(gzip.compress(parquet()))
    assert texts_of(tmp_path / "x.parquet") == ["a good film"]


@pytest.mark.parametrize("encoding", ["auto", "cp1252"])
@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl", "x.json", "x.csv.gz"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, "is a Git LFS pointer, not the file itself: fetch the file with `git lfs pull`"),
        (PAGE, "is an HTML page, such as a sign-in or error page, not the file itself"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is an XML document"),
        (parquet(), "is a Parquet file: give it the suffix .parquet"),
        (arrow(), "is an Arrow file: give it the suffix .arrow"),
        (zipped(**SHEET), "is an Excel workbook or another Office document: save the sheet as CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), "is an Excel workbook or another Office document"),
        (zipped(**{"x.csv": CSV}), "is a zip archive: give it the suffix .zip, or unpack it"),
        (tar(), "is a tar archive: unpack it"),
        (b"%PDF-1.7\n%\xe2\xe3\n", "is a PDF document"),
        (b"SQLite format 3\x00" + bytes(80), "is an SQLite database"),
        (b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}\n", "is a NumPy array"),
        (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00", "is a Python pickle"),
    ],
    ids=["lfs", "page", "xml", "parquet", "arrow", "xlsx", "xls", "zip", "tar", "pdf", "sqlite", "numpy", "pickle"],
)
def test_what_is_not_a_table_is_named(tmp_path: Path, name: str, encoding: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(InputError) as caught:
        source_of(path, encoding=encoding)
    assert f"{path} {message}" in str(caught.value)


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow", "x.feather"])
def test_a_typed_file_of_another_kind_is_named(tmp_path: Path, name: str) -> None:
    for content, what in ((POINTER, "is a Git LFS pointer"), (PAGE, "is an HTML page"), (zipped(**SHEET), "Excel")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=what):
            source_of(tmp_path / name)
    content, what = (arrow(), "is an Arrow file") if name == "x.parquet" else (parquet(), "is a Parquet file")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=what):
        source_of(tmp_path / name)


def test_a_plain_file_named_as_a_compressed_one_is_told_how_to_be_read(tmp_path: Path) -> None:
    for suffix in ("gz", "bz2", "xz", "zst"):
        path = tmp_path / f"x.csv.{suffix}"
        path.write_bytes(CSV)
        with pytest.raises(InputError, match=rf"{path} is not compressed; remove \.{suffix} from its name"):
            source_of(path)
    for content, what in ((POINTER, "is a Git LFS pointer"), (PAGE, "is an HTML page"), (CSV, "is not a zip file")):
        for name in ("x.csv.gz", "x.zip") if content != CSV else ("x.zip",):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(InputError, match=what):
                source_of(tmp_path / name)


def test_json_lines_named_csv_are_told_how_to_be_read(tmp_path: Path) -> None:
    for name in ("x.csv", "x.tsv"):
        for content in ('{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n', '[{"text": "a"},\n {"text": "b"}]\n'):
            (tmp_path / name).write_text(content)
            with pytest.raises(InputError, match=r"contains JSON; rename it to end in \.jsonl"):
                source_of(tmp_path / name)


def test_texts_that_only_look_like_other_files_are_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("<html> is a tag\t1\n<b>bold</b>\t0\n")
    assert texts_of(path, text_column=("0",), label_column="1") == ["<html> is a tag", "<b>bold</b>"]
    path.write_text("PAR1\ttext\nx\ta\n")
    assert texts_of(path) == ["a"]
    path.write_text("BZh\ttext\nx\ta\n")
    assert texts_of(path) == ["a"]
    path.write_text("[text]\ttext\nx\ta\n")
    assert texts_of(path) == ["a"]
