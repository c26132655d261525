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
    task: str | None = identity(None, "GLUE task that defines the layout of the files.")
    submission: bool = identity(
        False, "Write a GLUE submission instead: a .tsv with index and prediction of every row. Needs --task."
    )
    prefix: str = identity("", "Prefix for the names of the new columns, if the input already uses them.")
    threshold: float = identity(
        0.5, "Minimum probability of a predicted label, for models that predict several per text.", gt=0, lt=1
    )
    tokenizer: str | None = identity(
        None, "Tokenizer folder of an .onnx file (default: next to it, or the model it was exported from)."
    )
    max_length: int | None = identity(
        None, "Maximum tokens per input (default: the run's, otherwise 64, or 128 for pairs).", ge=8, le=4096
    )
    max_characters: int = identity(1_000_000, "Set aside rows with a text longer than this.", ge=1)
    batch_size: int = runtime(64, "Texts per model batch.", ge=1)
    chunk_rows: int = runtime(8192, "Rows to hold in memory and sort by length at a time.", ge=1)

    @model_validator(mode="after")
    def _columns(self) -> PredictConfig:
        if self.task is None and not self.text_column:
            raise ValueError("name the text column with --text-column (two for pairs), or pass --task")
        if self.submission and (self.task is None or not self.output.endswith(".tsv")):
            raise ValueError("--submission needs --task, and an --output that ends in .tsv")
        if self.tokenizer is not None and not self.model.endswith(".onnx"):
            raise ValueError("--tokenizer is only for .onnx files; a model folder has its own")
        return self
