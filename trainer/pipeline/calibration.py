"""A short benchmark of this machine on the user's own texts: rows per second for each kind of work."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from shared.compute.hardware import resolve_device, resolve_dtype
from shared.embedded import EMBEDDED, resolve_encoder
from shared.errors import ClusterError
from trainer.any_classifier import load_any_classifier
from trainer.config import TaskConfig
from trainer.data.batches import Pieces, tokenize
from trainer.evaluation import equal_length_batches, in_precision
from trainer.models import load_classifier, load_tokenizer
from trainer.pipeline.choices import Rates
from trainer.pipeline.config import DistillConfig
from trainer.pipeline.inspection import Inspection, texts_of
from trainer.pipeline.preparation import parquet_of
from trainer.scores import classify
from trainer.student import make_student
from trainer.teacher_states import gives_states, load_with_states

logger = logging.getLogger(__name__)

MEASURED_BATCHES, SECONDS = 4, 4.0
AUGMENT_SECONDS = "12"
"""For the whole plan; starting Ray and loading the models take more than half of it."""
PLANNED_ROWS = 512
LIBRARIES = "import pyarrow, ray, torch, transformers"


def calibrate(config: DistillConfig, inspection: Inspection, max_length: int, student: str) -> Rates:
    """Benchmark for a few seconds. Raises ExpectedError."""
    began = time.monotonic()
    augment, fixed, start = _augmentation(config, inspection)
    if config.threads:
        torch.set_num_threads(config.threads)
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    other = None
    if config.teacher and not gives_states(config.teacher, config.student):
        other = load_any_classifier(config.teacher, device=config.device, dtype=config.dtype)
    named = EMBEDDED if other is not None or config.teacher_column else config.teacher or config.encoder
    path = resolve_encoder(named) if named == EMBEDDED else named
    num_labels = max(len(inspection.counts), 1)
    tokenizer = load_tokenizer(path)
    if config.teacher and other is None:
        _, teacher, _ = load_with_states(config.teacher)
    else:
        teacher = load_classifier(path, num_labels, "--teacher")
    teacher = teacher.to(device)
    nowhere = {"output": "-", "augmented": "-", "teacher": "-", "text_column": ("-",), "label_column": "-"}
    options = TaskConfig.build(nowhere | {"student": student})
    small = make_student(options, teacher.bert, num_labels, tokenizer, learns_attention=False).model.to(device)
    rows = inspection.rows[:: max(len(inspection.rows) // (MEASURED_BATCHES * config.batch_size), 1)]
    texts = texts_of(rows[: MEASURED_BATCHES * config.batch_size], inspection.has_pairs)
    pieces = tokenize(tokenizer, *texts, max_length)
    annotate = None
    if other is not None:
        annotate = _rate(lambda: other.logits(*texts, max_length), len(pieces.lengths))
    step = _rate(lambda: _train(teacher, pieces, config.batch_size, device, dtype), len(pieces.lengths))
    own = _rate(lambda: _train(small, pieces, config.batch_size, device, dtype), len(pieces.lengths))
    answering = in_precision(teacher.eval(), dtype)
    forward = _rate(lambda: _answer(answering, pieces, config.batch_size, device), len(pieces.lengths))
    rates = Rates(
        teacher_step=step,
        teacher_forward=forward,
        student_step=own,
        augment=augment,
        augment_fixed=fixed,
        start=start,
        annotate=annotate,
    )
    logger.info("calibrated", extra={"fields": {"seconds": round(time.monotonic() - began, 1)}})
    return rates


def _augmentation(config: DistillConfig, inspection: Inspection) -> tuple[float, float, float]:
    """(rows per second, seconds before the first row, seconds to load the libraries), by the job's own `plan`."""
    columns = ["--text-column", *inspection.text_columns, "--label-column", inspection.label_column]
    rows = inspection.rows[:: max(len(inspection.rows) // PLANNED_ROWS, 1)]
    with TemporaryDirectory() as folder:
        (Path(folder) / "rows.parquet").write_bytes(parquet_of(rows, inspection))
        command = [sys.executable, "-m", "augment_service", "plan", "--input", f"{folder}/rows.parquet", *columns]
        command += ["--mlm", config.mlm, "--glove", config.glove, "--shard-rows", "16", "--json"]
        command += ["--calibrate-seconds", AUGMENT_SECONDS]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        lines = finished.stderr.strip().splitlines() or ["no reason given"]
        reason = lines[-1].removeprefix("augment_service: error: ")
        raise ClusterError(f"measuring the speed of the augmentation failed: {reason}")
    plan: dict[str, Any] = json.loads(finished.stdout)
    models = float(plan["start_seconds"])
    working = max(float(plan["seconds"]) - models, 0.1)
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", LIBRARIES], capture_output=True, check=False)
    start = time.monotonic() - began
    # Ray takes about as long to start as the libraries do to load.
    return float(plan["rows"]) / working, models + start, start


def _rate(work: Callable[[], object], rows: int) -> float:
    """Rows per second after a warm-up."""
    work()
    began, done = time.monotonic(), 0
    while time.monotonic() - began < SECONDS / 2 or not done:
        work()
        done += rows
    return done / (time.monotonic() - began)


def _train(model: Any, pieces: Pieces, batch_rows: int, device: str, dtype: torch.dtype) -> Sequence[int]:
    """Forward and backward passes; no weight changes."""
    model.train()
    rows: list[int] = []
    for numbers, batch in equal_length_batches(pieces, batch_rows, model.config.pad_token_id):
        moved = batch.to(device)
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            loss = classify(model, moved.input_ids, moved.token_type_ids, moved.model_mask).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        model.zero_grad(set_to_none=True)
        rows += numbers.tolist()
    return rows


@torch.no_grad()
def _answer(model: Any, pieces: Pieces, batch_rows: int, device: str) -> Sequence[int]:
    rows: list[int] = []
    for numbers, batch in equal_length_batches(pieces, batch_rows, model.config.pad_token_id):
        moved = batch.to(device)
        classify(model, moved.input_ids, moved.token_type_ids, moved.model_mask)
        rows += numbers.tolist()
    return rows
