"""The same table, written by six libraries in every format that they have, gives the same texts, labels and ids."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shared.inputs.labels import label_text
from shared.inputs.options import InputOptions
from shared.inputs.rows import SourceRow
from shared.inputs.sources import open_source

Columns = dict[str, list[Any]]


def frame(columns: Columns) -> pd.DataFrame:
    return pd.DataFrame(columns)


def python_csv(columns: Columns, path: Path, **dialect: Any) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, **dialect)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def python_json(columns: Columns, path: Path, indent: int | None = None) -> None:
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    path.write_text(json.dumps(rows, indent=indent), encoding="utf-8")


def python_lines(columns: Columns, path: Path) -> None:
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")


def arrow_ipc(columns: Columns, path: Path, new: Callable[..., Any]) -> None:
    table = pa.table(columns)
    with new(str(path), table.schema) as writer:
        writer.write_table(table)


def saved(columns: Columns, path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    datasets.Dataset.from_dict(columns).save_to_disk(str(path))


WRITERS: dict[str, Callable[[Columns, Path], Any]] = {
    "csv.csv": python_csv,
    "csv.tsv": lambda columns, path: python_csv(columns, path, dialect="excel-tab"),
    "csv-unix.csv": lambda columns, path: python_csv(columns, path, dialect="unix"),
    "csv-semicolon.csv": lambda columns, path: python_csv(columns, path, delimiter=";"),
    "json.json": python_json,
    "json-pretty.json": lambda columns, path: python_json(columns, path, 2),
    "json.jsonl": python_lines,
    "pandas.csv": lambda columns, path: frame(columns).to_csv(path),
    "pandas.tsv": lambda columns, path: frame(columns).to_csv(path, sep="\t"),
    "pandas.csv.gz": lambda columns, path: frame(columns).to_csv(path, index=False),
    "pandas.zip": lambda columns, path: frame(columns).to_csv(path.with_suffix(".csv.zip"), index=False),
    "pandas.json": lambda columns, path: frame(columns).to_json(path),
    "pandas-records.json": lambda columns, path: frame(columns).to_json(path, orient="records"),
    "pandas.jsonl": lambda columns, path: frame(columns).to_json(path, orient="records", lines=True),
    "pandas.parquet": lambda columns, path: frame(columns).to_parquet(path),
    "pandas.feather": lambda columns, path: frame(columns).to_feather(path),
    "polars.csv": lambda columns, path: pl.DataFrame(columns).write_csv(path),
    "polars.tsv": lambda columns, path: pl.DataFrame(columns).write_csv(path, separator="\t"),
    "polars.json": lambda columns, path: pl.DataFrame(columns).write_json(path),
    "polars.ndjson": lambda columns, path: pl.DataFrame(columns).write_ndjson(path),
    "polars.parquet": lambda columns, path: pl.DataFrame(columns).write_parquet(path),
    "polars.arrow": lambda columns, path: pl.DataFrame(columns).write_ipc(path),
    "polars-stream.arrow": lambda columns, path: pl.DataFrame(columns).write_ipc_stream(path),
    "pyarrow.csv": lambda columns, path: pa.csv.write_csv(pa.table(columns), path),
    "pyarrow.parquet": lambda columns, path: pq.write_table(pa.table(columns), path),
    "pyarrow.feather": lambda columns, path: pa.feather.write_feather(pa.table(columns), path),
    "pyarrow.arrow": lambda columns, path: arrow_ipc(columns, path, pa.ipc.new_file),
    "pyarrow-stream.arrow": lambda columns, path: arrow_ipc(columns, path, pa.ipc.new_stream),
    "datasets.csv": lambda columns, path: datasets.Dataset.from_dict(columns).to_csv(path),
    "datasets.jsonl": lambda columns, path: datasets.Dataset.from_dict(columns).to_json(path),
    "datasets.parquet": lambda columns, path: datasets.Dataset.from_dict(columns).to_parquet(path),
    "datasets-folder": saved,
}

ROUNDING = {"pandas.json", "pandas-records.json", "pandas.jsonl", "datasets.jsonl"}
"""These write ten decimals of a float."""

texts = st.text(
    st.one_of(
        st.sampled_from("\"',;|\t\n\r\\ aé漢😀\u2028\x85\ufeff"),
        st.characters(exclude_categories=["Cs"], exclude_characters="\x00"),
    ),
    min_size=1,
    max_size=12,
).filter(lambda text: text.strip() != "" and "\x00" not in text)
names = st.sampled_from(
    ["01", "1", "001", "NA", "null", "None", "nan", "5E3", "pos", "neg", "a,b", "true", "1e5", "-0"]
)
finite = st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)
"""Without -0.0, which pyarrow writes as -0: a code, like 01."""
labels = st.sampled_from([st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1), names, finite])
ids = st.integers(-(2**63), 2**63 - 1)


@st.composite
def tables(draw: st.DrawFn) -> Columns:
    size = draw(st.integers(1, 6))
    label = draw(labels)
    return {
        "text": draw(st.lists(texts, min_size=size, max_size=size)),
        "label": draw(st.lists(label, min_size=size, max_size=size)),
        "id": draw(st.lists(ids, min_size=size, max_size=size, unique=True)),
    }


@pytest.fixture(autouse=True)
def _no_progress_bars() -> None:
    datasets.disable_progress_bars()


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(tables())
@example({"text": ["a"], "label": ["01"], "id": [2**63 - 1]})
@example({"text": ["a\r", '"', "\\"], "label": [1e-7, 1e20, 5.0], "id": [0, 1, -1]})
def test_every_writer_gives_the_same_rows(tmp_path: Path, columns: Columns) -> None:
    wanted = list(zip(columns["text"], map(label_text, columns["label"]), columns["id"], strict=True))
    for name, write in WRITERS.items():
        if name in ROUNDING and isinstance(columns["label"][0], float):
            continue
        folder = tmp_path / name.replace(".", "-")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        write(columns, folder / name)
        source = open_source(
            InputOptions(input=(str(folder),), text_column=("text",), label_column="label", id_column="id")
            if name != "datasets-folder"
            else InputOptions(input=(str(folder / name),), text_column=("text",), label_column="label", id_column="id")
        )
        rows = [
            (item.text_a, label_text(item.label), item.source_id) if isinstance(item, SourceRow) else item
            for item in source.rows()
        ]
        assert rows == wanted, name
