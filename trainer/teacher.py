"""`trainer teacher`: fine-tune a BERT encoder on a labelled file; the best checkpoint on dev is kept."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional

from shared.cli.command_line import CommandResult
from shared.cli.progress import format_seconds
from shared.embedded import resolve_encoder
from trainer.checkpoint import open_run, write_result
from trainer.config import TeacherConfig
from trainer.data.batches import Batch, tokenize
from trainer.data.sources import TableSource
from trainer.data.tasks import TaskSpec, glue_spec, own_spec, read_table, sequence_length
from trainer.evaluation import predict
from trainer.loop import Losses, Run, Stage, Worker, train
from trainer.metrics import score, selection_score
from trainer.models import count_parameters, load_classifier, load_tokenizer, save_classifier
from trainer.scores import classify, encode
from trainer.workers import run_to_result


@dataclass(frozen=True, slots=True)
class Supervision:
    """Cross-entropy on the labels, or mean squared error for regression."""

    model: Any
    is_regression: bool

    def losses(self, batch: Batch) -> Losses:
        """The one term of a part of a batch."""
        states = encode(self.model.bert, batch.input_ids, batch.token_type_ids, batch.model_mask)
        logits = classify(self.model, states).float()
        if self.is_regression:
            loss = functional.mse_loss(logits[:, 0], batch.labels)
        else:
            loss = functional.cross_entropy(logits, batch.labels.long())
        return {"label": batch.row_share * loss}


def run_command(config: TeacherConfig) -> CommandResult:
    """Fine-tune, or go on; leaves OUTPUT/model. Raises ExpectedError."""
    folder = open_run(config.output, "teacher", config.identity(), {"name": config.name})
    result = run_to_result(_work, config, folder)
    scores = ", ".join(f"{name} {value:.4f}" for name, value in result["dev"].items())
    took = format_seconds(result["seconds"])
    text = f"teacher after {result['samples']:,} examples in {took}: {scores}\n{folder / 'model'}"
    return CommandResult(result, text)


def _work(config: TeacherConfig, worker: Worker) -> None:
    folder = Path(config.output)
    torch.manual_seed(config.seed)
    table, dev_table = read_table(config.train, config), read_table(config.dev, config)
    spec = _spec(config, [row.label for row in table.rows])
    encoder = resolve_encoder(config.encoder)
    tokenizer = load_tokenizer(encoder)
    model = load_classifier(encoder, spec.num_logits, "--encoder").to(worker.device)
    length = sequence_length(config.max_length, table.has_pairs)
    examples, dev = table.examples(spec), dev_table.examples(spec)
    pieces = tokenize(tokenizer, examples.texts_a, examples.texts_b, length)
    dev_pieces = tokenize(tokenizer, dev.texts_a, dev.texts_b, length)

    def evaluate() -> tuple[float, dict[str, float]]:
        with torch.autocast(worker.device, worker.dtype, enabled=worker.dtype != torch.float32):
            metrics = score(spec, predict(model, dev_pieces, worker.device), dev.labels)
        return selection_score(spec, metrics), metrics

    inputs = {name: _sha256(path) for name, path in (("train file", config.train), ("dev file", config.dev))}
    run = Run(config, folder, worker, {"teacher": model}, model.config.pad_token_id, evaluate, inputs)
    source = TableSource(examples, pieces, config.batch_size, config.seed)
    supervision = Supervision(model, spec.labels is None)
    state = train(run, [Stage("teacher", source, config.epochs, config.lr, supervision.losses, config.evaluations)])
    if not run.is_first:
        return
    facts = {
        "command": "teacher", "task": spec.name, "name": config.name, "seed": config.seed, "metric": spec.metrics[0],
        "rows": len(dev), "parameters": count_parameters(model), "teacher": None, "teacher_dev": None,
    } | state.facts()  # fmt: skip
    save_classifier(model, tokenizer, spec, folder / "model", facts | {"recipe": config.identity()})
    write_result(folder, facts)


def _spec(config: TeacherConfig, labels: list[object]) -> TaskSpec:
    return glue_spec(config.task) if config.task else own_spec(labels, config.regression, config.train)


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
