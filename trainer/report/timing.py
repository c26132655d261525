"""Teacher and student timed side by side: one process, the same inputs, in alternating turns.

Other load on the machine slows both models equally, so the figure that counts is the ratio of two neighbouring turns;
its median and quartiles are reported. A pass is what a server would run: token ids in, logits out, no gradients, both
models through plain transformers with the same attention kernel if both support it. Each model reads the texts with its
own tokenizer, so a teacher of another architecture may have more or fewer tokens per text.
"""

from __future__ import annotations

import contextlib
import inspect
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from shared.compute.hardware import resolve_device, resolve_dtype
from trainer.export.sample_inputs import EncodedRow, encode_texts, pad_rows, random_rows, read_texts
from trainer.export.saved_classifier import SavedClassifier, load_saved_classifier
from trainer.positions import longest_input
from trainer.report.config import ReportConfig
from trainer.report.measurements import Measurement, Timing
from trainer.report.model_folder import ModelFolder
from trainer.report.runs import Run

BATCHES_OF_TEXTS = 8
"""Number of different batches of real texts in a turn."""
TURN_SECONDS = 0.1
"""A turn is repeated until it takes this long: one pass of a small model is too short to time reliably."""
ATTENTION = "sdpa"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Batches that one model runs. width, real_pieces: mean tokens per row, with and without padding."""

    batches: list[dict[str, Tensor]]
    width: float
    real_pieces: float


def time_runs(runs: Sequence[Run], config: ReportConfig) -> list[Timing]:
    """Time every distinct pair of model shapes among the finished `runs` once. Raises ExpectedError."""
    device = resolve_device(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        if run.model is not None and run.teacher is not None and run.is_finished:
            length = config.length or run.length
            key = (run.teacher.shape, run.model.shape, length)
            groups.setdefault(key, []).append(run)
    return [_time_group(members, config, device) for members in groups.values()]


def _time_group(runs: Sequence[Run], config: ReportConfig, device: str) -> Timing:
    folders = _folders(runs[0])
    contenders = [load_saved_classifier(str(one.folder), "--runs") for one in folders]
    length = min(config.length or runs[0].length, *(longest_input(one.model, one.tokenizer) for one in contenders))
    kernels = dict.fromkeys(_attention_of(one.model) for one in contenders)
    measurements = []
    for dtype in config.dtypes:
        if dtype == "bf16" and resolve_dtype("auto", device) != torch.bfloat16:
            continue
        precision = torch.bfloat16 if dtype == "bf16" else torch.float32
        models = [one.model.to(device, precision).eval() for one in contenders]
        for batch_size in config.batch_sizes:
            theirs, own = (make_inputs(one, config, batch_size, length, device) for one in contenders)
            turns = [_turn(model, inputs, device) for model, inputs in zip(models, (theirs, own), strict=True)]
            seconds = alternate(turns, config.alternations, len(own.batches))
            measurements.append(measurement_of(dtype, batch_size, own, seconds))
    return Timing(
        teacher=str(folders[0].shape),
        student=str(folders[1].shape),
        runs=[run.folder for run in runs],
        length=length,
        inputs=f"texts of {config.data}" if config.data else "random tokens, no padding",
        device=torch.cuda.get_device_name() if device == "cuda" else "cpu",
        threads=torch.get_num_threads(),
        attention=" and ".join(kernels),
        measurements=measurements,
    )


def _attention_of(model: Any) -> str:
    """Set the common attention kernel if the model supports it; returns the name of the kernel in use."""
    with contextlib.suppress(ValueError):
        model.set_attn_implementation(ATTENTION)
    return str(model.config._attn_implementation)


def make_inputs(classifier: SavedClassifier, config: ReportConfig, batch_size: int, length: int, device: str) -> Inputs:
    """Real texts cut to `length` tokens and padded to the longest of each batch, or full rows of random tokens."""
    tokenizer, known = classifier.tokenizer, inspect.signature(classifier.model.forward).parameters
    if config.data is None:
        batches = [random_rows(tokenizer, batch_size, length, length, config.seed)]
    else:
        rows = encode_texts(tokenizer, read_texts(config, BATCHES_OF_TEXTS * batch_size), length)
        batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
        # A partial last batch would be counted as a full one.
        batches = [batch for batch in batches if len(batch) == batch_size] or [_repeated(rows, batch_size)]
    tensors = [
        {
            name: torch.from_numpy(array).to(device)
            for name, array in pad_rows(batch, tokenizer).items()
            # DistilBERT uses BERT's tokenizer, but takes no token types.
            if name in known
        }
        for batch in batches
    ]
    widths = [batch["input_ids"].shape[1] for batch in tensors]
    pieces = [len(row.ids) for batch in batches for row in batch]
    return Inputs(batches=tensors, width=statistics.fmean(widths), real_pieces=statistics.fmean(pieces))


def alternate(turns: Sequence[Callable[[], None]], alternations: int, num_batches: int) -> list[list[float]]:
    """Seconds per batch for each contender and alternation; the starting order alternates."""
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
    """Runs all batches through the model once, and returns when the device has finished."""

    @torch.inference_mode()
    def turn() -> None:
        for batch in inputs.batches:
            model(**batch)
        if device == "cuda":
            torch.cuda.synchronize()

    return turn


def measurement_of(dtype: str, batch_size: int, inputs: Inputs, seconds: Sequence[Sequence[float]]) -> Measurement:
    """seconds: per batch and alternation, of the teacher and of the student."""
    teacher, student = (statistics.median(one) for one in seconds)
    low, middle, high = statistics.quantiles([a / b for a, b in zip(*seconds, strict=True)], n=4, method="inclusive")
    return Measurement(
        dtype=dtype,
        batch_size=batch_size,
        width=round(inputs.width, 1),
        real_pieces=round(inputs.real_pieces, 1),
        teacher_milliseconds=teacher * 1e3,
        student_milliseconds=student * 1e3,
        teacher_texts_per_second=batch_size / teacher,
        student_texts_per_second=batch_size / student,
        ratio=middle,
        ratio_low=low,
        ratio_high=high,
        alternations=len(seconds[0]),
    )


def _folders(run: Run) -> tuple[ModelFolder, ModelFolder]:
    assert run.teacher is not None
    assert run.model is not None
    return run.teacher, run.model


def _repeated(rows: Sequence[EncodedRow], count: int) -> list[EncodedRow]:
    return [rows[number % len(rows)] for number in range(count)]


def machine_facts() -> Mapping[str, Any]:
    """Processor, cores and versions that the timings ran on."""
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
