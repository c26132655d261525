"""Configuration of `trainer export`, and the option that names real texts for its check and the report's timing."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator

from shared.cli.config import CommandConfig, identity, runtime


class TextsConfig(CommandConfig):
    """Real texts in place of random pieces."""

    group: ClassVar[str] = "Input texts"

    data: str | None = identity(
        None, "Texts to run on instead of random pieces: a file of lines (.txt, .gz, .xz), or a table (see below)."
    )
    task: str | None = identity(None, "GLUE task whose layout the table --data has.")
    text_column: tuple[str, ...] = identity(
        (), "Text column of the table --data, by name or 0-based index; two for text pairs.", max_length=2
    )

    @model_validator(mode="after")
    def _columns_need_data(self) -> TextsConfig:
        if self.data is None and (self.task or self.text_column):
            raise ValueError("--task and --text-column say how --data is read: name a file with --data")
        return self


class ExportConfig(TextsConfig):
    """What to export, and how it is checked."""

    group: ClassVar[str] = "Export"

    model: str = identity(..., "Folder of a sequence classification model with its tokenizer.")
    format: Literal["onnx", "int8"] = identity(
        ..., "onnx: fp32, equal to PyTorch; int8: dynamically quantised weights."
    )
    output: str = runtime(..., "File to write; facts and figures of the check go beside it as .json.")
    opset: int = identity(18, "ONNX operator set.", ge=18, le=23)
    max_length: int | None = identity(None, "Longest input in pieces (default: what the model takes).", ge=8)
    rows: int = identity(256, "Inputs that the predictions are compared on.", ge=1)
    seed: int = identity(0, "Seed of the random pieces.", ge=0, lt=2**63)
