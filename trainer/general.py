"""`trainer general`: a student learns from an un-tuned teacher on plain text, by the intermediate losses alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from shared.cli.command_line import CommandResult
from shared.cli.progress import format_seconds
from shared.embedded import resolve_encoder
from shared.errors import UsageError
from trainer.checkpoint import open_run, write_result
from trainer.config import GeneralConfig
from trainer.data.corpus import Vocabulary, read_lines, tokenize
from trainer.data.sources import TextSource
from trainer.distill import IntermediateDistillation, make_student
from trainer.loop import Run, Stage, Worker, train
from trainer.models import count_parameters, load_encoder, load_tokenizer, save_classifier
from trainer.workers import run_to_result


@dataclass(frozen=True, slots=True)
class _Encoder:
    """An un-tuned teacher, in the shape of a fine-tuned one."""

    bert: Any


def run_command(config: GeneralConfig) -> CommandResult:
    """Distil, or go on; leaves OUTPUT/model, a student for `trainer task --student`. Raises ExpectedError."""
    if config.corpus_weights and len(config.corpus_weights) != len(config.corpus):
        raise UsageError(
            f"--corpus-weights has {len(config.corpus_weights)} numbers for {len(config.corpus)} files of --corpus"
        )
    folder = open_run(config.output, "general", config.identity(), {"name": config.name})
    result = run_to_result(_work, config, folder)
    text = (
        f"student of {result['parameters']:,} parameters after {result['samples']:,} passages in "
        f"{format_seconds(result['seconds'])}\n{folder / 'model'}"
    )
    return CommandResult(result, text)


def _work(config: GeneralConfig, worker: Worker) -> None:
    folder = Path(config.output)
    torch.manual_seed(config.seed)
    path = resolve_encoder(config.teacher)
    tokenizer = load_tokenizer(path)
    teacher = load_encoder(path).to(worker.device).eval().requires_grad_(False).to(worker.dtype)
    student, projections, mapping = make_student(config, _Encoder(teacher), 2, tokenizer)
    student.to(worker.device)
    projections.to(worker.device)
    source = _source(config, tokenizer)
    epochs = config.epochs
    if config.max_tokens is not None:
        weights = config.corpus_weights or (1.0,) * len(config.corpus)
        per_epoch = sum(weight * len(file.ids) for weight, file in zip(weights, source.files, strict=True))
        epochs = min(epochs, config.max_tokens / per_epoch)
    run = Run(
        config, folder, worker, {"student": student, "projections": projections}, student.config.pad_token_id, None
    )
    distillation = IntermediateDistillation(teacher, student.bert, projections, mapping)
    state = train(run, [Stage("general", source, epochs, config.lr, distillation.losses, 0)])
    if not run.is_first:
        return
    facts = {
        "command": "general", "task": None, "name": config.name, "seed": config.seed, "metric": None, "rows": 0,
        "parameters": count_parameters(student), "teacher": config.teacher, "teacher_dev": None,
        "mapping": list(mapping),
    } | state.facts()  # fmt: skip
    save_classifier(student, tokenizer, None, folder / "model", facts | {"recipe": config.identity()})
    projections.save(folder / "model")
    write_result(folder, facts)


def _source(config: GeneralConfig, tokenizer: Any) -> TextSource:
    files = [tokenize(list(read_lines(path)), tokenizer) for path in config.corpus]
    weights = config.corpus_weights or (1.0,) * len(files)
    vocabulary = Vocabulary.of(tokenizer)
    return TextSource(files, weights, vocabulary, config.max_length, config.batch_size, config.seed)
