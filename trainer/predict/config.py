"""Configuration of `trainer predict`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import model_validator

from shared.cli.config import identity, runtime
from shared.cli.table_format import TableFormat
from trainer.config import ComputeConfig


class PredictConfig(ComputeConfig, TableFormat):
    """Options of `trainer predict`."""

    group: ClassVar[str] = "Prediction"

    model: str = identity(..., "Sequence classification model: a folder, a run's output, a hub id or an .onnx file.")
    data: tuple[str, ...] = identity(
        ..., "Tables to predict on: files, folders or globs; TSV, CSV, JSONL, Parquet or Arrow.", min_length=1
    )
    output: str = runtime(..., "File to write: .csv, .tsv, .jsonl or .parquet, with all columns of the input.")
    text_column: tuple[str, ...] = identity(
        (), "Text column, by name or 0-based index; two for text pairs.", max_length=2
    )
    task: str | None = identity(None, "GLUE task whose layout the files have.")
    submission: bool = identity(
        False, "Write a GLUE submission (index and prediction, as .tsv) instead: needs --task, and answers every row."
    )
    prefix: str = identity("", "Put before the names of the new columns, should the input have the same.")
    threshold: float = identity(
        0.5, "Least probability of the labels of a text, for a model that gives several.", gt=0, lt=1
    )
    tokenizer: str | None = identity(
        None, "Folder of the tokenizer of an .onnx file (default: next to it, else the model it was exported from)."
    )
    max_length: int | None = identity(
        None, "Longest input in tokens (default: that of the run, else 64, for pairs 128).", ge=8, le=4096
    )
    max_characters: int = identity(1_000_000, "Set rows with a longer text aside.", ge=1)
    batch_size: int = runtime(64, "Texts per model batch.", ge=1)
    chunk_rows: int = runtime(8192, "Rows that are held in memory and sorted by length together.", ge=1)

    @model_validator(mode="after")
    def _columns(self) -> PredictConfig:
        if self.task is None and not self.text_column:
            raise ValueError("name the text with --text-column (two columns for pairs), or give --task")
        if self.submission and (self.task is None or not self.output.endswith(".tsv")):
            raise ValueError("--submission needs --task, and a file that ends in .tsv as --output")
        if self.tokenizer is not None and not self.model.endswith(".onnx"):
            raise ValueError("--tokenizer is for .onnx files; a model folder has its own")
        return self
