"""Configuration of `trainer report`."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from shared.config import how, what
from trainer.export_config import TextsConfig


class ReportConfig(TextsConfig):
    """Which runs, and how teacher and student are timed."""

    runs: tuple[str, ...] = what(..., "Output folders of trainer teacher, general and task.", min_length=1)
    output: str = how(..., "HTML file to write; the figures go beside it as .json.")
    title: str = how("Distillation report", "Heading of the page.")
    timing: bool = how(True, "Time students beside their teachers (off: sizes, scores and curves only).")
    alternations: int = what(9, "Turns that teacher and student each take in every timing.", ge=3)
    batch_sizes: tuple[int, ...] = what((1, 32), "Batch sizes to time.", min_length=1)
    dtypes: tuple[Literal["fp32", "bf16"], ...] = what(
        ("fp32", "bf16"), "Precisions to time; bf16 is left out where the hardware does not multiply it.", min_length=1
    )
    threads: int | None = what(None, "CPU threads (default: as many as the machine has).", ge=1)
    device: Literal["auto", "cpu", "cuda"] = what("auto", "Where to time: auto takes CUDA where there is one.")
    length: int | None = what(None, "Pieces of a timed input (default: the run's own --max-length).", ge=2)
    seed: int = what(0, "Seed of the random pieces.", ge=0, lt=2**63)

    @model_validator(mode="after")
    def _batches_are_positive(self) -> ReportConfig:
        if min(self.batch_sizes) < 1:
            raise ValueError("--batch-sizes must be 1 or more")
        return self
