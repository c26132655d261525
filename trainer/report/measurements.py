"""The figures of a timing (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One precision and batch size. Milliseconds: median time of a batch; ratio: teacher's time / student's time.

    width, real_pieces: mean number of tokens per row with and without padding; ratio_low, ratio_high: quartiles.
    """

    dtype: str
    batch_size: int
    width: float
    real_pieces: float
    teacher_milliseconds: float
    student_milliseconds: float
    teacher_texts_per_second: float
    student_texts_per_second: float
    ratio: float
    ratio_low: float
    ratio_high: float
    alternations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Teacher against student at one input length; valid for every run with the same two shapes."""

    teacher: str
    student: str
    runs: Sequence[str]
    length: int
    inputs: str
    device: str
    threads: int
    attention: str
    measurements: Sequence[Measurement]

    def speed_up(self) -> Measurement | None:
        """The measurement for the headline: fp32 (or what was measured instead), at the largest batch."""
        exact = [one for one in self.measurements if one.dtype == "fp32"] or self.measurements
        return max(exact, key=lambda one: one.batch_size, default=None)
