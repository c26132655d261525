"""Tables as people have them: the same rows whatever wrote the file, and never half a row."""

from __future__ import annotations

import bz2
import csv
import datetime
import gzip
import json
import lzma
import re
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from shared.errors import InputError
from shared.glue import get_task
from shared.inputs.arrow_cells import to_array
from shared.inputs.options import InputOptions
from shared.inputs.rows import QuarantinedRow, SourceRow
from shared.inputs.sources import Source, open_source


def source_of(*paths: Path, **options: Any) -> Source:
    return open_source(InputOptions(input=tuple(map(str, paths)), **{"text_column": ("text",)} | options))


def texts_of(*paths: Path, **options: Any) -> list[str]:
    items = list(source_of(*paths, **options).rows())
    assert not [item for item in items if isinstance(item, QuarantinedRow)]
    return [item.text_a for item in items if isinstance(item, SourceRow)]


words = st.text("ab\"', ;\t\né漢", min_size=1, max_size=8).filter(str.strip)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(st.lists(words, min_size=1, max_size=6), st.sampled_from(["\t", ",", ";"]), st.booleans())
@example(["'a'"], "\t", True)
@example(["';'"], ",", True)
@example(["'a\"b'"], ",", False)
@example(["';'", "'a\nb'"], ";", False)
def test_what_a_csv_writer_quotes_is_read_row_for_row(
    tmp_path: Path, texts: list[str], delimiter: str, quote_all: bool
) -> None:
    # A column whose cells are all in single quotes, with no double quotes in the file, means a writer of single quotes.
    assume(quote_all or not all(re.fullmatch(r"'[^\"]*'", text, re.DOTALL) for text in texts))
    path = tmp_path / ("x.tsv" if delimiter == "\t" else "x.csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(
            file,
            delimiter=delimiter,
            lineterminator="\n",
            quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL,
        )
        writer.writerows([["text", "y"], *([text, "1"] for text in texts)])
    assert texts_of(path) == texts


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.text(max_size=3)), min_size=1, max_size=5), st.booleans())
def test_a_json_array_is_read_like_lines(tmp_path: Path, rows: list[dict[str, str]], pretty: bool) -> None:
    rows = [{"text": f"row {number}", **row} for number, row in enumerate(rows)]
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=2 if pretty else None), encoding="utf-8")
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    array, lines = (list(source_of(tmp_path / name).rows()) for name in ("a.json", "b.jsonl"))
    assert array == lines


def test_a_broken_array_is_refused(tmp_path: Path) -> None:
    for content in ('[{"text": "a"}, {"text": "b"', '[{"text": "a"}] {"text": "b"}', '[{"text": "a"} {"text": "b"}]'):
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(InputError, match="not a valid JSON array after row"):
            source_of(tmp_path / "x.json")


@pytest.mark.parametrize(
    "document",
    [
        {"text": {"0": "a", "1": "b"}, "y": {"0": 1, "1": 0}},
        {"text": ["a", "b"], "y": [1, 0]},
        {"version": "1", "data": [{"text": "a", "y": 1}, {"text": "b", "y": 0}]},
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_document_is_the_table_in_it(tmp_path: Path, document: dict[str, Any], indent: int | None) -> None:
    (tmp_path / "x.json").write_text(json.dumps(document, indent=indent))
    rows = [(row.text_a, row.label) for row in source_of(tmp_path / "x.json", label_column="y").rows()]  # type: ignore[union-attr]
    assert rows == [("a", 1), ("b", 0)]


def test_one_object_of_texts_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"text": "a film", "y": 1}, indent=2))
    assert texts_of(tmp_path / "x.json") == ["a film"]


def test_quotes_in_an_unquoted_tsv_are_text(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text('text\ty\n"Good" film\t1\n"open\t0\nplain\t1\n')
    assert texts_of(path) == ['"Good" film', '"open', "plain"]
    path.write_text('text\ty\n"Good film"\t1\n')
    assert texts_of(path) == ["Good film"]
    assert texts_of(path, quoting="none") == ['"Good film"']


def test_escapes_encodings_and_delimiters(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('text,y\n"He said \\"good, very good\\" twice",1\nfine,0\n')
    assert texts_of(path) == ['He said "good, very good" twice', "fine"]
    path.write_bytes("text,y\na café film,1\n".encode("cp1252"))
    assert texts_of(path, encoding="cp1252") == ["a café film"]
    path.write_bytes("text,y\na café film,1\n".encode("utf-16"))
    assert texts_of(path) == ["a café film"]
    path.write_text("text;y\na gripping, honest film;1\na dull story;0\n")
    assert texts_of(path) == ["a gripping, honest film", "a dull story"]
    path.write_text("text^y\na film^1\n")
    assert texts_of(path, delimiter="^") == ["a film"]


def test_a_first_row_of_data_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("2,a gripping film,1\n0,a dull story,0\n2,a fine plot,1\n")
    source = source_of(path, text_column=("1",), label_column="0")
    rows = [(row.text_a, row.label) for row in source.rows() if isinstance(row, SourceRow)]
    assert rows == [("a gripping film", 2), ("a dull story", 0), ("a fine plot", 2)]
    path.write_text("text,y\na film,1\nb,0\n")
    assert texts_of(path, text_column=("0",)) == ["a film", "b"]
    assert texts_of(path, text_column=("0",), header="no") == ["text", "a film", "b"]
    path.write_text("0,1\na film,1\nb,0\n")  # the names that pandas gives to columns without one
    assert texts_of(path, text_column=("0",)) == ["a film", "b"]


def test_json_values_keep_their_types(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    rows = [{"text": "a", "year": 1999, "ok": True, "score": 1.5, "mixed": 1}, {"text": "b", "score": 2, "mixed": "x"}]
    path.write_text("\n".join(map(json.dumps, [*rows, {"text": ["no text"]}])))
    items = list(source_of(path).rows())
    assert [item.rest for item in items if isinstance(item, SourceRow)] == [
        (1999, True, 1.5, "1"),
        (None, None, 2, "x"),
    ]
    assert [item.reason for item in items if isinstance(item, QuarantinedRow)] == ["column text: not text"]


def test_parts_have_the_union_of_their_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "n": pa.array([1], pa.int32()), "z": pa.nulls(1)}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"z": ["x"], "text": ["b"], "n": [2**40]}), tmp_path / "b.PARQUET")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "c.parquet")
    (tmp_path / ".hidden.parquet").write_bytes(b"")
    source = source_of(tmp_path)
    items = [item for item in source.rows() if isinstance(item, SourceRow)]
    rest = [to_array([item.rest[index] for item in items], one.type) for index, one in enumerate(source.rest_fields)]
    assert [column.to_pylist() for column in rest] == [[1, 2**40], [None, "x"]]
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.csv").write_text("text,y\na,1\n")
    (tmp_path / "text" / "b.csv").write_text("more,text\nm,b\n")
    (tmp_path / "text" / "c.csv").write_text("")
    (tmp_path / "text" / "deep").mkdir()
    assert texts_of(tmp_path / "text") == ["a", "b"]
    (tmp_path / "text" / "deep" / "d.csv").write_text("text\nd\n")
    assert texts_of(tmp_path / "text" / "**" / "*.csv") == ["a", "b", "d"]


def test_compressed_tables(tmp_path: Path) -> None:
    content = b"text,y\na,1\nb,0\n"
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(content))
    (tmp_path / "x.csv.bz2").write_bytes(bz2.compress(content))
    (tmp_path / "x.csv.XZ").write_bytes(lzma.compress(content))
    (tmp_path / "x.csv.zst").write_bytes(pa.compress(content, "zstd", asbytes=True))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("data/x.csv", content)
        archive.writestr("__MACOSX/x.csv", b"")
    for name in ("x.csv.gz", "x.csv.bz2", "x.csv.XZ", "x.csv.zst", "x.zip"):
        assert texts_of(tmp_path / name) == ["a", "b"], name
    assert len(texts_of(tmp_path)) == 10
    for name in ("x.csv.gz", "x.csv.XZ", "x.zip"):
        damaged = tmp_path / name
        damaged.write_bytes(damaged.read_bytes()[:-9])
        with pytest.raises(InputError, match="cannot be decompressed"):
            texts_of(damaged)


def test_dates_beyond_python_and_views_travel(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["a", "b"],
            "day": pa.array([2932897, None], pa.date32()),
            "at": pa.array([2**62 + 1, 0], pa.timestamp("ns", "UTC")),
            "view": pa.array(["x", "y"], pa.string_view()),
        }
    )
    with pa.ipc.new_file(tmp_path / "x.arrow", table.schema) as writer:
        writer.write_table(table)
    source = source_of(tmp_path / "x.arrow")
    rows = [item.rest for item in source.rows() if isinstance(item, SourceRow)]
    for index, field in enumerate(source.rest_fields):
        assert (
            to_array([row[index] for row in rows], field.type)
            .cast(table[field.name].type)
            .equals(table[field.name].combine_chunks())
        )
    pq.write_table(pa.table({"text": ["a"], "day": [datetime.date(2020, 1, 1)]}), tmp_path / "b.parquet")
    assert texts_of(tmp_path / "x.arrow", tmp_path / "b.parquet") == ["a", "b", "a"]


def hub_table(path: Path, names: list[str]) -> None:
    features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    table = pa.table({"premise": ["a"] * 4, "hypothesis": ["b"] * 4, "label": [0, 1, 2, -1]})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), path)


def test_class_labels_are_their_names(tmp_path: Path) -> None:
    names = ["entailment", "neutral", "contradiction"]
    hub_table(tmp_path / "x.parquet", names)
    source = source_of(tmp_path / "x.parquet", task=get_task("MNLI"), text_column=())
    items = list(source.rows())
    assert [item.label for item in items if isinstance(item, SourceRow)] == names
    assert [item.reason for item in items if isinstance(item, QuarantinedRow)] == ["column label: the label is missing"]
    assert source.label_type == pa.string()


def test_saved_dictionaries_are_refused(tmp_path: Path) -> None:
    (tmp_path / "dict").mkdir()
    (tmp_path / "dict" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(InputError, match=r"several splits \(train, test\)"):
        source_of(tmp_path / "dict")


def test_no_two_columns_of_a_shard_have_one_name(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("text\tn\tn_input\tn_input_2\n" + "a\t1\t2\t3\n")
    names = [field.name for field in source_of(tmp_path / "x.tsv").rest_fields]
    assert names == ["n_input_3", "n_input", "n_input_2"]


@pytest.mark.parametrize("form", ["lines", "array", "document", "stream"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_json_in_any_encoding_and_form(tmp_path: Path, encoding: str, form: str) -> None:
    rows = [{"text": f"ein schöner Film {index}", "label": index} for index in range(3)]
    written = {
        "lines": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
        "array": json.dumps(rows, ensure_ascii=False, indent=1),
        "document": json.dumps({"data": rows}, ensure_ascii=False, indent=1),
        "stream": "\n".join(json.dumps(row, ensure_ascii=False, indent=2) for row in rows),
    }
    path = tmp_path / "x.json"
    path.write_bytes(written[form].encode(encoding))
    options = {"encoding": encoding} if encoding == "cp1252" else {}
    assert texts_of(path, **options) == [row["text"] for row in rows]


def test_json_that_is_not_utf_8_says_which_option_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes('{"text": "plain"}\n{"text": "schön"}\n'.encode("latin-1"))
    first, second = source_of(path).rows()
    assert isinstance(first, SourceRow)
    assert isinstance(second, QuarantinedRow)
    assert "--encoding" in second.reason
    path.write_bytes('[{"text": "schön"}]'.encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8 after row 0; set another encoding with --encoding"):
        source_of(path)
    path.write_bytes('{"text": "plain"}\n'.encode("utf-16-le"))
    with pytest.raises(InputError, match="set its encoding"):
        source_of(path)


def test_objects_one_after_another_are_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"text": "a"}{"text": "b"} {"text": "c"}\n{"text": "d"}')
    assert texts_of(path) == ["a", "b", "c", "d"]
    path.write_text('{\n "text": "a"\n}\n{\n "text": \n')
    with pytest.raises(InputError, match="not a valid sequence of JSON objects after row 1"):
        source_of(path)


def test_blanks_after_each_delimiter_belong_to_no_cell(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('label, text\n1, "good, very good"\n0, bad film\n1, "a ""fine"" film,too"\n')
    source = source_of(path, label_column="label")
    assert texts_of(path, label_column="label") == ["good, very good", "bad film", 'a "fine" film,too']
    assert source.label_type == pa.int64()
    path.write_text('text, label\n"good, very good", yes\nbad film, no\n')
    assert source_of(path, label_column="label").labels == frozenset({"yes", "no"})
    # Without a blank in one place, a blank is part of its cell.
    path.write_text("text,label\n good film,1\n bad film,0\n")
    assert texts_of(path) == [" good film", " bad film"]
