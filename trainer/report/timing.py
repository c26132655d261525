"""Teacher and student timed side by side: one process, the same inputs, turns taken alternately.

A machine is never quiet; what other work takes away, it takes from both. So the figure that counts is the ratio of two
neighbouring turns, of which the median and the quartiles are reported. A pass is what a server would run: piece ids in,
logits out, without gradients, both models by plain transformers with the same attention kernel.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from shared.compute.hardware import resolve_device, resolve_dtype
from trainer.export.command import load_classifier_folder
from trainer.export.sample_inputs import EncodedRow, encode_texts, longest_input, pad_rows, random_rows, read_texts
from trainer.report.config import ReportConfig
from trainer.report.runs import ModelFolder, Run

BATCHES_OF_TEXTS = 8
"""So many different batches of real texts make a turn."""
TURN_SECONDS = 0.1
"""A turn is repeated until it lasts this long: single passes of a small model are too short for the clock's noise."""
ATTENTION = "sdpa"


@dataclass(frozen=True, slots=True)
class Inputs:
    """Batches that both models run, and what stands in them."""

    batches: list[dict[str, Tensor]]
    width: float
    real_pieces: float

    @property
    def num_rows(self) -> int:
        """Texts of all batches."""
        return sum(len(batch["input_ids"]) for batch in self.batches)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One precision and batch size. Milliseconds: median time of a batch; ratio: teacher's time by the student's."""

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


@dataclass(frozen=True, slots=True)
class Timing:
    """Teacher against student at one input length; holds for every run with the same two shapes."""

    teacher: str
    student: str
    runs: list[str]
    length: int
    inputs: str
    device: str
    threads: int
    attention: str
    measurements: list[Measurement]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    def speed_up(self) -> Measurement | None:
        """The figure for the headline: fp32, at the largest batch."""
        exact = [one for one in self.measurements if one.dtype == "fp32"] or self.measurements
        return max(exact, key=lambda one: one.batch_size, default=None)


def time_runs(runs: Sequence[Run], config: ReportConfig) -> list[Timing]:
    """Time every distinct pair of shapes among `runs` once. Raises ExpectedError."""
    device = resolve_device(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        if run.model is not None and run.teacher is not None and run.is_finished:
            length = config.length or run.length
            key = (*run.teacher.shape.values(), *run.model.shape.values(), length)
            groups.setdefault(key, []).append(run)
    return [_time_group(members, config, device) for members in groups.values()]


def _time_group(runs: Sequence[Run], config: ReportConfig, device: str) -> Timing:
    folders = _folders(runs[0])
    teacher, student = (load_classifier_folder(str(one.folder), "--runs") for one in folders)
    length = min(
        config.length or runs[0].length, *(longest_input(one.model.config, one.tokenizer) for one in (teacher, student))
    )
    measurements = []
    for dtype in config.dtypes:
        if dtype == "bf16" and resolve_dtype("auto", device) != torch.bfloat16:
            continue
        precision = torch.bfloat16 if dtype == "bf16" else torch.float32
        models = [one.model.to(device, precision).eval() for one in (teacher, student)]
        for model in models:
            model.set_attn_implementation(ATTENTION)
        for batch_size in config.batch_sizes:
            inputs = make_inputs(student.tokenizer, config, batch_size, length, device)
            turns = alternate(
                [_turn(model, inputs, device) for model in models], config.alternations, len(inputs.batches)
            )
            measurements.append(_measurement(dtype, batch_size, inputs, turns))
    return Timing(
        folders[0].shape_text, folders[1].shape_text, [str(run.folder) for run in runs], length,
        f"texts of {config.data}" if config.data else "random pieces, no padding",
        torch.cuda.get_device_name() if device == "cuda" else "cpu", torch.get_num_threads(), ATTENTION, measurements,
    )  # fmt: skip


def make_inputs(tokenizer: Any, config: ReportConfig, batch_size: int, length: int, device: str) -> Inputs:
    """Real texts cut to `length` and padded to the longest of each batch, or full rows of random pieces."""
    if config.data is None:
        batches = [random_rows(tokenizer, batch_size, length, length, config.seed)]
    else:
        rows = encode_texts(tokenizer, read_texts(config, BATCHES_OF_TEXTS * batch_size), length)
        batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
        # A last batch that is not full would count as a full one.
        batches = [batch for batch in batches if len(batch) == batch_size] or [_repeated(rows, batch_size)]
    tensors = [
        {name: torch.from_numpy(array).to(device) for name, array in pad_rows(batch, tokenizer).items()}
        for batch in batches
    ]
    widths = [batch["input_ids"].shape[1] for batch in tensors]
    pieces = [len(row.ids) for batch in batches for row in batch]
    return Inputs(tensors, statistics.fmean(widths), statistics.fmean(pieces))


def alternate(turns: Sequence[Callable[[], None]], alternations: int, num_batches: int) -> list[list[float]]:
    """Seconds of a batch for each contender and alternation; who begins changes every time."""
    repeats = []
    for turn in turns:
        turn()
        began = time.perf_counter()
        turn()
        repeats.append(max(round(TURN_SECONDS / max(time.perf_counter() - began, 1e-9)), 1))
    seconds: list[list[float]] = [[] for _ in turns]
    for number in range(alternations):
        order = range(len(turns)) if number % 2 == 0 else reversed(range(len(turns)))
        for contender in order:
            began = time.perf_counter()
            for _ in range(repeats[contender]):
                turns[contender]()
            seconds[contender].append((time.perf_counter() - began) / repeats[contender] / num_batches)
    return seconds


def _turn(model: Any, inputs: Inputs, device: str) -> Callable[[], None]:
    """All batches through the model once, finished when it returns."""

    @torch.inference_mode()
    def turn() -> None:
        for batch in inputs.batches:
            model(**batch)
        if device == "cuda":
            torch.cuda.synchronize()

    return turn


def _measurement(dtype: str, batch_size: int, inputs: Inputs, seconds: Sequence[Sequence[float]]) -> Measurement:
    teacher, student = (statistics.median(one) for one in seconds)
    low, middle, high = statistics.quantiles([a / b for a, b in zip(*seconds, strict=True)], n=4, method="inclusive")
    return Measurement(
        dtype, batch_size, round(inputs.width, 1), round(inputs.real_pieces, 1), teacher * 1e3, student * 1e3,
        batch_size / teacher, batch_size / student, middle, low, high, len(seconds[0]),
    )  # fmt: skip


def _folders(run: Run) -> tuple[ModelFolder, ModelFolder]:
    assert run.teacher is not None
    assert run.model is not None
    return run.teacher, run.model


def _repeated(rows: Sequence[EncodedRow], count: int) -> list[EncodedRow]:
    return [rows[number % len(rows)] for number in range(count)]


def machine_facts() -> Mapping[str, Any]:
    """What the timings ran on."""
    import os
    import platform

    import transformers

    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), model)
    except OSError:
        pass
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
