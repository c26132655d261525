"""What `trainer distill` finds in a file whose rows have several labels, before anything is trained."""

from __future__ import annotations

import csv
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trainer.pipeline.config import DistillConfig
from trainer.pipeline.inspection import Inspection, doubtful_classes, inspect
from trainer.pipeline.parts import DEV, TEST, assign_parts


def inspected(path: Path, **options: Any) -> Inspection:
    return inspect(DistillConfig.build({"data": str(path), "output": "-", **options}))


def save_lists(path: Path, rows: list[tuple[str, list[str]]]) -> Path:
    path.write_text("".join(json.dumps({"text": text, "labels": labels}) + "\n" for text, labels in rows), "utf-8")
    return path


def test_the_order_of_a_row_s_labels_is_no_contradiction(tmp_path: Path) -> None:
    rows = [(f"text {index // 2}", ["a", "b"] if index % 2 else ["b", "a"]) for index in range(200)]
    assert inspected(save_lists(tmp_path / "x.jsonl", rows)).contradictions == 0
    rows[0] = ("text 0", ["b"])
    assert inspected(save_lists(tmp_path / "x.jsonl", rows)).contradictions == 1


def test_label_columns_by_index_are_no_candidates_for_the_text(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["passage", "p", "q", "r"])
        writer.writerows([f"passage {index}", index % 2, index % 3 // 2, index % 5 // 4] for index in range(120))
    by_index, by_name = (inspected(path, multi_label=names) for names in (("1", "2", "3"), ("p", "q", "r")))
    assert by_index.text_columns == by_name.text_columns == ("passage",)
    assert by_index.label_column == by_name.label_column == "labels"
    assert by_index.rows == by_name.rows
    assert by_index.counts == {"p": 60, "q": 40, "r": 24}


def test_every_label_has_rows_to_choose_and_to_test_on(tmp_path: Path) -> None:
    # "x" is never the rarest label of a row, and most rows of the rarer ones lack it.
    rows = [(f"text {index}", [f"y{index % 5}", *(["x"] if index < 10 else [])]) for index in range(40)]
    rows += [(f"other {index}", []) for index in range(400)]
    found = inspected(save_lists(tmp_path / "x.jsonl", rows))
    parts = assign_parts(found.hashes(), found.classes(), 0.02, 0.02)
    for part in (DEV, TEST):
        apart = [row.label for row, one in zip(found.rows, parts, strict=True) if one == part]
        assert {label for labels in apart for label in labels} == set(found.counts)
        assert [] in apart


def test_classes_that_are_probably_one_are_named() -> None:
    assert doubtful_classes(["bad", "good", "good film"]) == []
    assert doubtful_classes(["bad", "Good", "good ", "good"]) == [
        "warning: classes 'Good', 'good ', 'good' differ only in case or spaces; if they are one class, use "
        "one spelling"
    ]
    assert doubtful_classes(["bad", "NaN"]) == [
        "warning: class 'NaN' looks like a missing label; to leave these rows out, empty their cells"
    ]


def test_decimal_labels_are_the_numbers_that_they_are(tmp_path: Path) -> None:
    values = [Decimal(index % 5) / 2 for index in range(120)]
    table = pa.table(
        {"text": [f"text {index}" for index in range(120)], "score": pa.array(values, pa.decimal128(4, 2))}
    )
    pq.write_table(table, tmp_path / "x.parquet")
    found = inspected(tmp_path / "x.parquet", label_column="score", regression=True)
    assert any("from 0 to 2" in line for line in found.description("x"))
