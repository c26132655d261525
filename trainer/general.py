"""`trainer general`: a student learns from an encoder on plain text, by the intermediate losses alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from shared.cli.command_line import CommandResult
from shared.cli.progress import format_seconds
from shared.embedded import resolve_encoder
from shared.errors import InputError, UsageError
from trainer.config import GeneralConfig
from trainer.conversion import WITH_OFFSET
from trainer.data.budget import Epochs
from trainer.data.corpus import Vocabulary, corpus_digests
from trainer.data.corpus_cache import CorpusCache
from trainer.data.segments import SegmentSource
from trainer.data.text import TextSource
from trainer.data.token_file import TokenFile
from trainer.distill import IntermediateDistillation
from trainer.explained import unexplained_shares
from trainer.frozen import freeze
from trainer.loop import train
from trainer.models import (
    count_parameters,
    fingerprint,
    fitting_length,
    load_encoder,
    load_tokenizer,
    read_config,
    save_classifier,
    tokenizer_fingerprint,
    with_types,
)
from trainer.recipe import Evaluation, Recipe, Schedule, Scores, Stage, every_tokens, plateau_schedule, schedule_of
from trainer.result import RunResult, write_result
from trainer.shapes import first_batches, fit_projections, token_frequencies
from trainer.state import Run, Worker
from trainer.student import make_student, parse_size
from trainer.workers import run_to_result, start_run

UNTRAINED_CLASSES = 2
FITTED_BATCHES, HELD_OUT_BATCHES = 8, 16


def run_command(config: GeneralConfig) -> CommandResult:
    """Distil, or resume; leaves OUTPUT/model, a student for `trainer task --student`. Raises ExpectedError."""
    with start_run("general", config) as run:
        result = run_to_result(_work, config, run)
    text = (
        f"student with {result.parameters:,} parameters, trained on {result.samples:,} passages in "
        f"{format_seconds(result.seconds)}\n{run.model}"
    )
    return CommandResult(result.to_json(), text)


def _work(config: GeneralConfig, worker: Worker) -> None:
    """One worker's part of a run; the first one writes."""
    torch.manual_seed(config.seed)
    path = resolve_encoder(config.teacher)
    tokenizer = load_tokenizer(path, "--teacher")
    kind = read_config(path, "--teacher").model_type
    if config.pairs and kind in WITH_OFFSET:
        raise UsageError(
            f"--pairs: {config.teacher} is a {kind}, which separates the texts of a pair differently from its student; "
            "leave out --pairs"
        )
    teacher = load_encoder(path, tokenizer)
    tokenizer = tokenizer if kind == "bert" else with_types(tokenizer)
    identity = fingerprint(teacher)
    teacher = teacher.to(worker.device).eval().requires_grad_(False).to(worker.dtype)
    fitting_length(config.max_length, config.max_length, teacher.config, tokenizer, config.teacher)
    digests = corpus_digests(config.corpus)
    cache = CorpusCache.of(config, config.held_out, tokenizer, tokenizer_fingerprint(tokenizer))
    corpus = [cache.get(path, digests[path]) for path in config.corpus]
    source = _source(config, tokenizer, [train for train, _ in corpus])
    if not source.tokens_per_pass:
        raise InputError(f"--corpus {', '.join(config.corpus)}: no text to train on")
    frequencies = token_frequencies(source.files, source.weights, len(tokenizer))
    student = make_student(config, teacher, UNTRAINED_CLASSES, tokenizer, frequencies=frequencies)
    if student.vocabulary is not None:
        raise UsageError(
            f"--student {config.student} has a pruned vocabulary, but general distillation needs a student with its "
            "teacher's full vocabulary; prune it afterwards with `trainer task --prune-vocabulary`"
        )
    fitting_length(config.max_length, config.max_length, student.model.config, tokenizer, config.student)
    freeze(teacher)
    model, projections = student.model.to(worker.device), student.projections.to(worker.device)
    if config.projection_init == "fitted" and parse_size(config.student) is not None:
        first = first_batches(source, FITTED_BATCHES, worker.device)
        fit_projections(projections, model.bert, teacher, student.mapping, first)
    distillation = IntermediateDistillation(
        teacher=teacher,
        student=model.bert,
        projections=projections,
        mapping=student.mapping,
        objective=student.objective,
    )
    evaluation = None
    if any(held_out.num_lines for _, held_out in corpus):
        kept = first_batches(
            _source(config, tokenizer, [held_out for _, held_out in corpus]), HELD_OUT_BATCHES, worker.device
        )
        evaluation = Evaluation(
            scores=lambda: Scores(
                name="unexplained",
                values=unexplained_shares(model.bert, teacher, projections, student.mapping, kept),
            ),
            num_due=every_tokens(config.evaluate_tokens),
        )
    stage = Stage(
        name="general",
        source=source,
        budget=Epochs(total=_epochs(config, source)),
        recipe=Recipe(schedule=_schedule(config), weight_decay=config.weight_decay),
        losses=distillation.losses,
        evaluation=evaluation,
    )
    folder = Path(config.output)
    run = Run(
        config=config,
        folder=folder,
        worker=worker,
        trained={"student": model, "projections": projections},
        inputs={"teacher": identity} | {f"corpus file {path}": digest for path, digest in digests.items()},
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


def _source(config: GeneralConfig, tokenizer: Any, files: Sequence[TokenFile]) -> TextSource | SegmentSource:
    """Training sequences from the lines of each corpus file."""
    vocabulary = Vocabulary.of(tokenizer)
    if not config.pairs:
        return TextSource(
            files=files,
            weights=config.weights,
            vocabulary=vocabulary,
            max_length=config.max_length,
            batch_size=config.batch_size,
            seed=config.seed,
        )
    return SegmentSource(
        files=files,
        weights=config.weights,
        vocabulary=vocabulary,
        max_length=config.max_length,
        batch_size=config.batch_size,
        seed=config.seed,
        pair_share=config.pairs,
    )


def _schedule(config: GeneralConfig) -> Schedule:
    if config.decay_share is None:
        return schedule_of(config.schedule, config.lr, config.warm_up_share)
    return plateau_schedule(config.lr, config.warm_up_share, config.decay_share)


def _epochs(config: GeneralConfig, source: TextSource | SegmentSource) -> float:
    passes = config.epochs
    if config.max_tokens is not None:
        passes = min(passes, config.max_tokens / source.tokens_per_pass)
    return passes * source.num_parts
