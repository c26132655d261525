"""Labels and ids keep what they are, whatever format they come in."""

from __future__ import annotations

import csv
import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.inputs.labels import label_text
from shared.inputs.options import InputOptions
from shared.inputs.rows import QuarantinedRow, SourceRow
from shared.inputs.sources import Source, open_source


def source_of(path: Path, **options: Any) -> Source:
    return open_source(InputOptions(input=(str(path),), text_column=("text",), **options))


def labels_of(path: Path) -> tuple[list[Any], pa.DataType, list[str]]:
    source = source_of(path, label_column="y")
    items = list(source.rows())
    left_out = [item.reason for item in items if isinstance(item, QuarantinedRow)]
    return [item.label for item in items if isinstance(item, SourceRow)], source.label_type, left_out


def as_csv(path: Path, cells: list[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text", "y"], *(["word", cell] for cell in cells)])
    return path


@pytest.mark.parametrize(
    ("cells", "expected", "kind"),
    [
        (["01", "1", "001"], ["01", "1", "001"], pa.string()),
        (["5E3", "5000"], ["5E3", "5000"], pa.string()),
        (["1", "+1", "-0", "0"], ["1", "+1", "-0", "0"], pa.string()),
        (["0.5", "0.50"], ["0.5", "0.50"], pa.string()),
        ([" 1", "1"], [" 1", "1"], pa.string()),
        (["1234567890123456789", "-9223372036854775808"], [1234567890123456789, -(2**63)], pa.int64()),
        (["12345678901234567890", "1"], ["12345678901234567890", "1"], pa.string()),
        (["9007199254740993", "0.5"], ["9007199254740993", "0.5"], pa.string()),
        (["1.0", "0.0", "1"], [1, 0, 1], pa.int64()),
        (["1", "2.5"], [1.0, 2.5], pa.float64()),
        (["1e-07", "1e-7", "1e+20", "0.5"], [1e-7, 1e-7, 1e20, 0.5], pa.float64()),
        (["1e5", "2.5"], ["1e5", "2.5"], pa.string()),
        (["1.50e-7", "2.5"], ["1.50e-7", "2.5"], pa.string()),
    ],
)
def test_a_label_is_a_number_only_if_every_cell_is_its_plain_spelling(
    tmp_path: Path, cells: list[str], expected: list[Any], kind: pa.DataType
) -> None:
    assert labels_of(as_csv(tmp_path / "x.csv", cells)) == (expected, kind, [])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(st.lists(st.from_regex(r"-?[0-9]{1,20}(\.[0-9]{1,3})?|[a-c]", fullmatch=True), min_size=1, max_size=5))
def test_two_labels_are_one_only_if_they_are_one_number(tmp_path: Path, cells: list[str]) -> None:
    labels, _, _ = labels_of(as_csv(tmp_path / "x.csv", cells))
    assert len(labels) == len(cells)
    for cell, label in zip(cells, labels, strict=True):
        assert str(label) in (cell, cell.removesuffix(".0"), f"{cell}.0")


def test_missing_labels_are_set_aside_in_every_format(tmp_path: Path) -> None:
    reason = "column y: the label is missing"
    for values, kind in (([1.0, None, float("nan"), 0.0], pa.float64()), (["1", None, "  ", "0"], pa.large_string())):
        pq.write_table(pa.table({"text": ["a"] * 4, "y": pa.array(values, kind)}), tmp_path / "x.parquet")
        labels, label_type, left_out = labels_of(tmp_path / "x.parquet")
        assert [str(label) for label in labels] == ["1", "0"]
        assert label_type == (pa.int64() if kind == pa.float64() else pa.string())
        assert left_out == [reason, reason]
    lines = ['{"text": "a", "y": 1.0}', '{"text": "a", "y": NaN}', '{"text": "a"}', '{"text": "a", "y": 2}']
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    assert labels_of(tmp_path / "x.jsonl") == ([1, 2], pa.int64(), [reason, reason])


def test_ids_are_exact_or_set_aside(tmp_path: Path) -> None:
    cells = ["9223372036854775807", "1.0", "007", "", "9223372036854775808"]
    items = list(source_of(as_csv(tmp_path / "x.csv", cells), id_column="y").rows())
    assert [item.source_id for item in items if isinstance(item, SourceRow)] == [2**63 - 1, 1]
    assert [item.reason for item in items if isinstance(item, QuarantinedRow)] == [
        "column y: '007' is not a plain 64-bit integer",
        "column y: the id is missing",
        "column y: '9223372036854775808' is not a plain 64-bit integer",
    ]


def test_json_labels_of_several_types_stay_apart_where_they_differ(tmp_path: Path) -> None:
    values = [1, "1", 1.0, "01", True]
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps({"text": "a", "y": value}) for value in values))
    assert labels_of(tmp_path / "x.jsonl") == (["1", "1", "1", "01", "true"], pa.string(), [])


@pytest.mark.parametrize(
    ("label", "text"),
    [
        (Decimal("1"), "1"),
        (Decimal("0.00"), "0"),
        (Decimal("1.50"), "1.50"),
        (datetime.date(2020, 1, 2), "2020-01-02"),
        (b"good", "good"),
        (b"\xff", "\\xff"),
        (True, "true"),
    ],
)
def test_values_that_json_has_no_form_for_are_their_text(label: object, text: str) -> None:
    assert label_text(label) == text
