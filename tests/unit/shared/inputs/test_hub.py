"""hf:// names a data set of the hub: its rows and the names of its classes, or one line that says what is missing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from shared.errors import InputError, UsageError
from shared.inputs.options import InputOptions
from shared.inputs.rows import SourceRow
from shared.inputs.sources import open_source


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The hub as a local folder: what was asked for is loaded by the library itself."""
    names = datasets.ClassLabel(names=["negative", "positive"])
    table = datasets.Dataset.from_dict({"text": ["a film", "a plot"], "label": [1, 0]}).cast_column("label", names)
    table.to_parquet(file := str(tmp_path / "films.parquet"))
    asked: list[Any] = []
    real = datasets.load_dataset

    def load(name: str, config: str | None, split: str) -> Any:
        asked.append((name, config, split))
        return real("parquet", data_files={"train": file}, split=split, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", load)
    return asked


def rows_of(uri: str) -> list[tuple[str, Any]]:
    options = InputOptions(input=(uri,), text_column=("text",), label_column="label")
    return [(row.text_a, row.label) for row in open_source(options).rows() if isinstance(row, SourceRow)]


def test_a_split_of_the_hub_is_read_with_the_names_of_its_classes(hub: list[Any]) -> None:
    assert rows_of("hf://owner/films/short:train") == [("a film", "positive"), ("a plot", "negative")]
    rows_of("hf://owner/films")
    rows_of("hf://imdb:train")
    assert hub == [("owner/films", "short", "train"), ("owner/films", None, "train"), ("imdb", None, "train")]


def test_what_cannot_be_loaded_is_one_line(hub: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"hf://owner/films:dev: Unknown split") as caught:
        rows_of("hf://owner/films:dev")
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="such as hf://nyu-mll/glue/sst2:train"):
        rows_of("hf://a/b/c/d")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match="pip install datasets"):
        rows_of("hf://owner/films")
