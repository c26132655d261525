"""`trainer general`: a student learns from an encoder on plain text, by the intermediate losses alone."""

from __future__ import annotations

from pathlib import Path

import torch

from shared.cli.command_line import CommandResult
from shared.cli.progress import format_seconds
from shared.embedded import resolve_encoder
from shared.errors import InputError
from shared.storage.input_files import sha256_of
from trainer.config import GeneralConfig
from trainer.data.budget import Epochs
from trainer.data.corpus import Vocabulary, read_lines, tokenize_lines
from trainer.data.text import TextSource
from trainer.distill import IntermediateDistillation
from trainer.loop import train
from trainer.models import count_parameters, fingerprint, fitting_length, load_encoder, load_tokenizer, save_classifier
from trainer.recipe import Recipe, Stage, linear_schedule
from trainer.result import RunResult, write_result
from trainer.state import Run, Worker
from trainer.student import make_student
from trainer.workers import run_to_result, start_run

UNTRAINED_CLASSES = 2


def run_command(config: GeneralConfig) -> CommandResult:
    """Distil, or resume; leaves OUTPUT/model, a student for `trainer task --student`. Raises ExpectedError."""
    folder = start_run("general", config)
    result = run_to_result(_work, config)
    text = (
        f"student of {result.parameters:,} parameters after {result.samples:,} passages in "
        f"{format_seconds(result.seconds)}\n{folder / 'model'}"
    )
    return CommandResult(result.to_json(), text)


def _work(config: GeneralConfig, worker: Worker) -> None:
    """One worker's part of a run; the first one writes."""
    torch.manual_seed(config.seed)
    path = resolve_encoder(config.teacher)
    tokenizer = load_tokenizer(path)
    teacher = load_encoder(path)
    identity = fingerprint(teacher)
    teacher = teacher.to(worker.device).eval().requires_grad_(False).to(worker.dtype)
    fitting_length(config.max_length, config.max_length, teacher.config, tokenizer, config.teacher)
    student = make_student(config, teacher, UNTRAINED_CLASSES, tokenizer)
    fitting_length(config.max_length, config.max_length, student.model.config, tokenizer, config.student)
    model, projections = student.model.to(worker.device), student.projections.to(worker.device)
    source = TextSource(
        files=[tokenize_lines(list(read_lines(path)), tokenizer) for path in config.corpus],
        weights=config.weights,
        vocabulary=Vocabulary.of(tokenizer),
        max_length=config.max_length,
        batch_size=config.batch_size,
        seed=config.seed,
    )
    if not source.tokens_per_epoch:
        raise InputError(f"--corpus {', '.join(config.corpus)}: no text to train on")
    distillation = IntermediateDistillation(
        teacher=teacher, student=model.bert, projections=projections, mapping=student.mapping
    )
    stage = Stage(
        name="general",
        source=source,
        budget=Epochs(total=_epochs(config, source)),
        recipe=Recipe(schedule=linear_schedule(config.lr, config.warm_up_share), weight_decay=config.weight_decay),
        losses=distillation.losses,
    )
    folder = Path(config.output)
    run = Run(
        config=config,
        folder=folder,
        worker=worker,
        trained={"student": model, "projections": projections},
        inputs={"teacher": identity} | {f"corpus file {path}": sha256_of(path) for path in config.corpus},
    )
    state = train(run, [stage])
    if not run.is_first:
        return
    result = RunResult(
        command="general",
        name=config.name,
        seed=config.seed,
        parameters=count_parameters(model),
        teacher=config.teacher,
        mapping=student.mapping,
    )
    result = state.complete(result)
    save_classifier(model, tokenizer, None, folder / "model", result, config.identity())
    projections.save(folder / "model")
    write_result(folder, result)


def _epochs(config: GeneralConfig, source: TextSource) -> float:
    if config.max_tokens is None:
        return config.epochs
    return min(config.epochs, config.max_tokens / source.tokens_per_epoch)
