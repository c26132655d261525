"""Configuration of `trainer export`, and the options for real texts that it shares with `trainer report`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator

from shared.cli.config import identity, runtime
from shared.cli.table_format import TableFormat


class TextsConfig(TableFormat):
    """Real texts instead of random tokens."""

    group: ClassVar[str] = "Input texts"

    data: str | None = identity(
        None, "Texts to use instead of random tokens: a text file with one per line (.txt, .gz, .xz), or a table."
    )
    task: str | None = identity(None, "GLUE task that defines the layout of the table in --data.")
    text_column: tuple[str, ...] = identity(
        (), "Text column of the table in --data, by name or 0-based index; two for text pairs.", max_length=2
    )

    @model_validator(mode="after")
    def _columns_need_data(self) -> TextsConfig:
        if self.data is None and (self.task or self.text_column):
            raise ValueError("--task and --text-column describe the table in --data: pass a file with --data")
        return self


class ExportConfig(TextsConfig):
    """What to export, and how to check it."""

    group: ClassVar[str] = "Export"

    model: str = identity(..., "Folder of a sequence classification model with its tokenizer.")
    format: Literal["onnx", "int8"] = identity(
        ..., "onnx: fp32, equal to PyTorch; int8: dynamically quantised weights."
    )
    output: str = runtime(..., "File to write; the results of the check are written next to it as .json.")
    opset: int = identity(18, "ONNX operator set.", ge=18, le=23)
    max_length: int | None = identity(None, "Maximum tokens per input (default: the model's limit).", ge=8)
    rows: int = identity(256, "Inputs to compare predictions on.", ge=1)
    seed: int = identity(0, "Seed for the random tokens.", ge=0, lt=2**63)
