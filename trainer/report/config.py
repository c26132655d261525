"""Configuration of `trainer report`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator

from shared.cli.config import identity, runtime
from trainer.export.config import TextsConfig


class ReportConfig(TextsConfig):
    """Which runs, and how teacher and student are timed."""

    group: ClassVar[str] = "Report"

    runs: tuple[str, ...] = identity(
        ..., "Output folders of trainer teacher, general and task (local, s3://, gs:// or az://).", min_length=1
    )
    output: str = runtime(..., "HTML file to write; the figures are written next to it as .json.")
    title: str = runtime("Distillation report", "Heading of the page.")
    timing: bool = runtime(True, "Time students against their teachers (off: sizes, scores and curves only).")
    alternations: int = identity(9, "Timed turns of teacher and student, alternating.", ge=3)
    batch_sizes: tuple[int, ...] = identity((1, 32), "Batch sizes to time.", min_length=1)
    dtypes: tuple[Literal["fp32", "bf16"], ...] = identity(
        ("fp32", "bf16"), "Precisions to time; bf16 is left out where the hardware does not support it.", min_length=1
    )
    threads: int | None = identity(None, "CPU threads (default: all cores).", ge=1)
    device: Literal["auto", "cpu", "cuda"] = identity("auto", "Device to time on: auto uses CUDA if available.")
    length: int | None = identity(None, "Tokens per timed input (default: the run's own --max-length).", ge=2)
    seed: int = identity(0, "Seed for the random tokens.", ge=0, lt=2**63)

    @model_validator(mode="after")
    def _batches_are_positive(self) -> ReportConfig:
        if min(self.batch_sizes) < 1:
            raise ValueError("--batch-sizes must be 1 or more")
        return self
