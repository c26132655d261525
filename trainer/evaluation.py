"""Logits of a classifier over a labelled file, and `trainer evaluate`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shared.cli.command_line import CommandResult
from shared.compute.hardware import resolve_device, resolve_dtype
from trainer.config import EvaluateConfig
from trainer.data.batches import Batch, Pieces, Window, tokenize
from trainer.data.tasks import Table, TaskSpec, read_table, sequence_length
from trainer.finite import check_answers
from trainer.metrics import baselines, label_scores, score, selection_noise, selection_score, weakness
from trainer.models import fitting_length, load_classifier, load_tokenizer, teacher_spec
from trainer.recipe import Scores
from trainer.scores import classify

logger = logging.getLogger(__name__)

EVALUATION_BATCH_ROWS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class DevSet:
    """Labelled rows, tokenized for scoring. labels: as in Examples; select_by: as in `selection_score`."""

    spec: TaskSpec
    pieces: Pieces
    labels: NDArray[np.float32]
    has_pairs: bool = False
    select_by: str = "mean"

    @classmethod
    def of(cls, table: Table, spec: TaskSpec, tokenizer: Any, max_length: int, select_by: str = "mean") -> DevSet:
        """Tokenize a table. Raises InputError for a label outside the task's classes."""
        examples = table.examples(spec)
        pieces = tokenize(tokenizer, examples.texts_a, examples.texts_b, max_length)
        return cls(spec=spec, pieces=pieces, labels=examples.labels, has_pairs=table.has_pairs, select_by=select_by)

    def metrics(self, model: Any, device: str, batch_rows: int = EVALUATION_BATCH_ROWS) -> dict[str, float]:
        """Metric -> value of a model. Raises InputError when rows have no label."""
        return score(self.spec, predict(model, self.pieces, device, batch_rows), self.labels)

    def label_scores(self, model: Any, device: str) -> dict[str, dict[str, float]] | None:
        """Label -> its scores for multi-label tasks; else None."""
        if not self.spec.multi_label:
            return None
        logits = predict(model, self.pieces, device)
        return {name: asdict(one) for name, one in label_scores(self.spec, logits, self.labels).items()}

    def scores(self, model: Any, device: str) -> Scores:
        """The metrics for the training loop, with the score that selects the best weights."""
        metrics = self.metrics(model, device)
        selection = selection_score(self.spec, metrics, self.select_by)
        noise = selection_noise(selection, len(self.labels), self.select_by)
        return Scores(name="dev", values=metrics, selection=selection, noise=noise)


def score_teacher(dev: DevSet, teacher: Any, device: str, name: str = "teacher_dev") -> dict[str, float]:
    """Metric -> value of a teacher; warns when it is hardly better than guessing. name: event in the log."""
    return score_answers(dev.spec, predict(teacher, dev.pieces, device), dev.labels, name)


def score_answers(
    spec: TaskSpec, logits: NDArray[np.float32], labels: NDArray[np.float32], name: str
) -> dict[str, float]:
    """As `score_teacher`, for given logits. logits: (rows, C) float32; labels: as in Examples."""
    metrics = score(spec, logits, labels)
    fields: dict[str, Any] = dict(metrics)
    logger.info(name, extra={"fields": fields})
    if problem := weakness(spec, logits, labels):
        logger.warning("teacher_is_weak", extra={"fields": fields | {"problem": problem}})
    return metrics


def run_command(config: EvaluateConfig) -> CommandResult:
    """Score a model folder on a labelled file; the result is one JSON object on stdout. Raises ExpectedError."""
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    if config.threads:
        torch.set_num_threads(config.threads)
    model = load_classifier(config.model, option="--model")
    spec = teacher_spec(model, config.task, config.model, "--model", config.label_map)
    table = read_table(config.data, config)
    tokenizer, default = load_tokenizer(config.model, "--model"), sequence_length(None, table.has_pairs)
    max_length = fitting_length(config.max_length, default, model.config, tokenizer, config.model)
    data = DevSet.of(table, spec, tokenizer, max_length)
    model = in_precision(model.to(device).eval(), dtype)
    logits = predict(model, data.pieces, device, config.batch_size)
    check_answers(logits, [row.text_a for row in table.rows], f"--model {config.model}")
    summary: dict[str, Any] = {
        "task": spec.name,
        "rows": len(data.labels),
        "metrics": score(spec, logits, data.labels),
        "baselines": baselines(spec, data.labels),
    }
    if spec.multi_label:
        scores = label_scores(spec, logits, data.labels)
        summary["labels"] = {name: asdict(one) for name, one in scores.items()}
    return CommandResult(summary, json.dumps(summary))


def in_precision(model: Any, dtype: torch.dtype) -> Any:
    """The encoder in `dtype`, pooler and classifier in fp32, because bf16 logits would be too coarse."""
    model.to(dtype)
    if model.bert.pooler is not None:
        model.bert.pooler.float()
    model.classifier.float()
    return model


@torch.no_grad()
def predict(model: Any, pieces: Pieces, device: str, batch_rows: int = EVALUATION_BATCH_ROWS) -> NDArray[np.float32]:
    """(rows, C) float32 logits, in the order of `pieces`, computed in eval mode."""
    was_training = model.training
    model.eval()
    logits = np.zeros((len(pieces.offsets) - 1, model.config.num_labels), np.float32)
    for rows, batch in equal_length_batches(pieces, batch_rows, model.config.pad_token_id):
        moved = batch.to(device)
        answers = classify(model, moved.input_ids, moved.token_type_ids, moved.model_mask)
        logits[rows] = answers.float().cpu().numpy()
    model.train(was_training)
    return logits


def equal_length_batches(pieces: Pieces, batch_rows: int, pad_id: int) -> Iterator[tuple[NDArray[np.int64], Batch]]:
    """(row numbers, batch) from the shortest rows to the longest."""
    count = len(pieces.offsets) - 1
    order = np.argsort(pieces.lengths, kind="stable")
    offsets = np.append(np.arange(0, count, batch_rows), count).astype(np.int64)
    window = Window(
        pieces=pieces.take(order),
        labels=np.zeros(count, np.float32),
        keys=np.zeros((count, 2), np.int64),
        batch_offsets=offsets,
        begin=0.0,
        end=1.0,
        pad_id=pad_id,
    )
    for number in range(window.num_batches):
        batch = window.part(number)
        if batch is not None:
            yield order[offsets[number] : offsets[number + 1]], batch
