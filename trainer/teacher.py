"""`trainer teacher`: fine-tune a BERT encoder on a labelled file; the best checkpoint is kept."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional

from shared.cli.command_line import CommandResult
from shared.cli.progress import format_seconds
from shared.embedded import resolve_encoder
from shared.storage.input_files import sha256_of
from trainer.config import TeacherConfig
from trainer.data.batches import Batch, tokenize
from trainer.data.budget import Epochs
from trainer.data.sources import TableSource
from trainer.data.tasks import Table, TaskSpec, glue_spec, own_spec, read_table, sequence_length
from trainer.evaluation import DevSet
from trainer.loop import train
from trainer.metrics import baselines, scores_text, selection_name
from trainer.models import (
    count_parameters,
    fingerprint,
    fitting_length,
    load_classifier,
    load_tokenizer,
    save_classifier,
)
from trainer.recipe import Evaluation, Losses, Recipe, Scores, Stage, per_epoch, schedule_of
from trainer.result import RunResult, write_result
from trainer.scores import classify
from trainer.selection import FinalSet, inputs_of, select_from_table
from trainer.state import Run, Worker
from trainer.workers import run_to_result, start_run

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervision:
    """Cross-entropy on the labels (binary for each in multi-label tasks), or mean squared error for regression."""

    model: Any
    spec: TaskSpec

    def losses(self, batch: Batch) -> Losses:
        """The one term of a part of a batch."""
        logits = classify(self.model, batch.input_ids, batch.token_type_ids, batch.model_mask).float()
        if self.spec.labels is None:
            loss = functional.mse_loss(logits[:, 0], batch.labels)
        elif self.spec.multi_label:
            loss = functional.binary_cross_entropy_with_logits(logits, batch.labels)
        else:
            loss = functional.cross_entropy(logits, batch.labels.long())
        return {"label": batch.row_share * loss}


def run_command(config: TeacherConfig) -> CommandResult:
    """Fine-tune, or resume; leaves OUTPUT/model, metrics.jsonl, result.json. Raises ExpectedError."""
    with start_run("teacher", config) as run:
        result = run_to_result(_work, config, run)
    scores = scores_text(result.dev, result.baselines)
    if result.test is not None:
        scores += f"; test: {scores_text(result.test.scores, result.test.baselines)}"
    took = format_seconds(result.seconds)
    text = f"teacher trained on {result.samples:,} examples in {took}: {scores}\n{run.model}"
    return CommandResult(result.to_json(), text)


def _work(config: TeacherConfig, worker: Worker) -> None:
    """One worker's part of a run; the first one writes."""
    torch.manual_seed(config.seed)
    table = read_table(config.train, config)
    spec = _spec(config, table)
    table, selection = select_from_table(config, table, spec)
    encoder = resolve_encoder(config.encoder)
    tokenizer = load_tokenizer(encoder, "--encoder")
    model = load_classifier(encoder, spec.num_logits, "--encoder")
    identity = fingerprint(model.bert)
    model = model.to(worker.device)
    default = sequence_length(None, table.has_pairs)
    max_length = fitting_length(config.max_length, default, model.config, tokenizer, config.encoder)
    examples = table.examples(spec)
    source = TableSource(
        examples=examples,
        pieces=tokenize(tokenizer, examples.texts_a, examples.texts_b, max_length),
        batch_size=config.batch_size,
        seed=config.seed,
        pad_id=model.config.pad_token_id,
    )
    dev = DevSet.of(selection.dev, spec, tokenizer, max_length, config.select_by)
    test = FinalSet(own=DevSet.of(selection.test, spec, tokenizer, max_length)) if selection.test else None
    reference = baselines(spec, dev.labels)
    logger.info("baselines", extra={"fields": {"rows": len(dev.labels), **reference}})

    def scores() -> Scores:
        with torch.autocast(worker.device, worker.dtype, enabled=worker.dtype != torch.float32):
            return dev.scores(model, worker.device)

    stage = Stage(
        name="teacher",
        source=source,
        budget=Epochs(total=config.epochs),
        recipe=Recipe(
            schedule=schedule_of(config.schedule, config.lr, config.warm_up_share), weight_decay=config.weight_decay
        ),
        losses=Supervision(model=model, spec=spec).losses,
        evaluation=Evaluation(scores=scores, num_due=per_epoch(config.evaluations)),
    )
    folder = Path(config.output)
    run = Run(
        config=config,
        folder=folder,
        worker=worker,
        trained={"teacher": model},
        inputs={"train file": sha256_of(config.train), "encoder": identity} | inputs_of(config),
    )
    state = train(run, [stage])
    if not run.is_first:
        return
    result = RunResult(
        command="teacher",
        task=spec.name,
        name=config.name,
        seed=config.seed,
        parameters=count_parameters(model),
        metric=spec.metrics[0],
        rows=len(dev.labels),
        selected_on=selection.origin,
        selected_by=selection_name(spec, config.select_by),
        baselines=reference,
        test=None if test is None else test.scores(model, worker.device),
        labels=(dev if test is None else test.own).label_scores(model, worker.device),
    )
    result = state.complete(result)
    save_classifier(model, tokenizer, spec, folder / "model", result, config.identity())
    write_result(folder, result)


def _spec(config: TeacherConfig, table: Table) -> TaskSpec:
    if config.task:
        return glue_spec(config.task)
    return own_spec([row.label for row in table.rows], config.regression, config.train, table.label_names)
