"""`trainer task`: a student from a fine-tuned teacher and the shards of an augmentation job, in two stages."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from shared.cli.command_line import CommandResult
from shared.cli.progress import format_seconds
from shared.errors import InputError, ManifestError, UsageError
from shared.glue import get_task
from shared.seeds import stage_seed
from trainer.config import Stage as StageName
from trainer.config import TaskConfig
from trainer.data.annotations import AnnotationFacts
from trainer.data.augmented import Augmented, open_augmented
from trainer.data.batches import Batch
from trainer.data.budget import Epochs
from trainer.data.given_answers import GivenAnswers, carried_name
from trainer.data.stream import ShardStream
from trainer.data.tasks import TaskSpec
from trainer.data.token_cache import TokenCache, cache_folder
from trainer.distill import IntermediateDistillation, PredictionDistillation
from trainer.evaluation import DevSet, in_precision
from trainer.frozen import freeze
from trainer.loop import train
from trainer.metrics import baselines, scores_text, selection_name
from trainer.models import (
    count_parameters,
    fitting_length,
    save_classifier,
    tokenizer_fingerprint,
)
from trainer.pruning import prune_to_samples
from trainer.recipe import Evaluation, Recipe, Stage, per_epoch, schedule_of
from trainer.result import RunResult, read_result, write_result
from trainer.selection import FinalSet, Selection, inputs_of, select_from_shards
from trainer.state import Run, State, Worker
from trainer.student import Student, make_student
from trainer.task_teacher import check_answers, load_teacher
from trainer.workers import run_to_result, start_run

logger = logging.getLogger(__name__)


def run_command(config: TaskConfig) -> CommandResult:
    """Distil, or resume; leaves OUTPUT/model, metrics.jsonl, result.json. Raises ExpectedError."""
    if read_result(Path(config.output)) is None:
        check_answers(config)
    with start_run("task", config, {"ablation": config.ablation}) as run:
        if read_result(run.path) is None:
            # Before workers start, so that wrong inputs are reported at once.
            augmented = open_augmented(config.augmented, config.follow_timeout)
            if config.task and augmented.task and get_task(config.task) != get_task(augmented.task):
                message = f"--augmented {config.augmented} holds samples of {augmented.task}, not {config.task}"
                raise ManifestError(message)
        result = run_to_result(_work, config, run)
    scores = scores_text(result.dev, result.baselines) or "not scored"
    if result.test is not None:
        scores += f"; test: {scores_text(result.test.scores, result.test.baselines)}"
    text = (
        f"student with {result.parameters:,} parameters, trained on {result.samples:,} samples in "
        f"{format_seconds(result.seconds)}: {scores}\n{run.model}"
    )
    return CommandResult(result.to_json(), text)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setting:
    """What the stages of a run share. dev: rows for selection, as the student reads them; test: for final scores."""

    config: TaskConfig
    augmented: Augmented
    spec: TaskSpec
    max_length: int
    teacher: Any
    teacher_parameters: int | None
    student: Student
    selection: Selection
    dev: DevSet
    teacher_dev: Mapping[str, float] | None
    test: FinalSet | None
    annotations: AnnotationFacts | None
    answers: GivenAnswers | None


def _work(config: TaskConfig, worker: Worker) -> None:
    """One worker's part of a run; the first one writes."""
    torch.manual_seed(config.seed)
    augmented = open_augmented(config.augmented, config.follow_timeout)
    teacher = load_teacher(config, augmented)
    spec = teacher.spec
    if config.balance and (spec.labels is None or spec.multi_label):
        raise UsageError("--balance needs a task with one class per row; leave it out for this task")
    carried = None if teacher.given is None else carried_name(teacher.given.column)
    selection = select_from_shards(config, augmented, spec, config.follow_timeout, carried)
    table = selection.dev
    if augmented.has_pairs not in (None, table.has_pairs):
        kinds = {True: "text pairs", False: "single texts"}
        raise InputError(
            f"--augmented {config.augmented} holds {kinds[not table.has_pairs]}, but --dev {config.dev} holds "
            f"{kinds[table.has_pairs]}: name the columns of both with --text-column, or use the same --task for both"
        )
    max_length, teacher_length = teacher.input_length(config.max_length, table.has_pairs)
    student = make_student(
        config, teacher.states.bert, spec.num_logits, teacher.tokenizer, "intermediate" in config.stages
    )
    student = prune_to_samples(student, config.prune_vocabulary, augmented, config.n_a, config.follow_timeout)
    max_length = fitting_length(config.max_length, max_length, student.model.config, student.tokenizer, config.student)
    annotations = AnnotationFacts(
        augmented=augmented.fingerprint,
        teacher=teacher.identity,
        tokenizer=teacher.tokenizer_identity,
        max_length=max_length if teacher.answers is None else teacher_length,
    )
    dev = DevSet.of(table, spec, student.tokenizer, max_length, config.select_by)
    logger.info("baselines", extra={"fields": {"rows": len(dev.labels), **baselines(spec, dev.labels)}})
    teacher.states.to(worker.device).eval().requires_grad_(False)
    # Before training, so that a teacher with wrong labels is noticed; in fp32, as the student is scored.
    teacher_dev = teacher.scores(table, teacher_length, worker.device) if worker.rank == 0 else None
    test = None
    if selection.test is not None and worker.rank == 0:
        test = FinalSet(
            own=DevSet.of(selection.test, spec, student.tokenizer, max_length),
            teacher=teacher.scores(selection.test, teacher_length, worker.device, "teacher_test"),
            answers=teacher.given_logits(selection.test),
        )
    answering = in_precision(teacher.states, worker.dtype)
    freeze(answering.bert)
    setting = _Setting(
        config=config,
        augmented=augmented,
        spec=spec,
        max_length=max_length,
        teacher=answering,
        teacher_parameters=teacher.parameters,
        student=student,
        selection=selection,
        dev=dev,
        teacher_dev=teacher_dev,
        test=test,
        annotations=annotations if config.annotated else None,
        answers=teacher.given,
    )
    run = Run(
        config=config,
        folder=Path(config.output),
        worker=worker,
        trained={"student": student.model.to(worker.device), "projections": student.projections.to(worker.device)},
        inputs={"augmented": augmented.fingerprint, "teacher": teacher.learned} | inputs_of(config),
    )
    state = train(run, [_stage(setting, name, worker) for name in config.stages])
    if run.is_first:
        _save(setting, state, worker)


def _stage(setting: _Setting, name: StageName, worker: Worker) -> Stage[Batch]:
    config, student = setting.config, setting.student
    is_prediction = name == "prediction"
    batch_size = (config.prediction_batch_size if is_prediction else None) or config.batch_size
    source = ShardStream(
        augmented=setting.augmented,
        spec=setting.spec,
        tokenizer=student.tokenizer,
        max_length=setting.max_length,
        batch_size=batch_size,
        window_shards=config.window_shards,
        # The two stages see the samples in different orders.
        seed=stage_seed(config.seed, int(is_prediction)),
        follow_timeout=config.follow_timeout,
        pad_id=student.model.config.pad_token_id,
        n_a=config.n_a,
        annotations=setting.annotations if is_prediction else None,
        balances=config.balance and is_prediction,
        answers=setting.answers if is_prediction else None,
        has_pairs=setting.dev.has_pairs,
        held_out=setting.selection.held_out,
        cache=TokenCache(folder=config.token_cache or str(cache_folder()), max_bytes=config.token_cache_bytes),
        tokenizer_digest=tokenizer_fingerprint(student.tokenizer),
        rank=worker.rank,
        world=worker.world,
    )
    if is_prediction:
        prediction = PredictionDistillation(
            teacher=setting.teacher,
            student=student.model,
            is_regression=setting.spec.labels is None,
            multi_label=setting.spec.multi_label,
            temperature=config.temperature,
            hard_label_weight=config.hard_label_weight,
            vocabulary=student.vocabulary,
        )
        return Stage(
            name=name,
            source=source,
            budget=Epochs(total=config.prediction_epochs),
            recipe=_recipe(config, config.prediction_schedule, config.prediction_lr),
            losses=prediction.losses,
            evaluation=Evaluation(
                scores=lambda: setting.dev.scores(student.model, worker.device),
                num_due=per_epoch(config.evaluations),
            ),
        )
    intermediate = IntermediateDistillation(
        teacher=setting.teacher.bert,
        student=student.model.bert,
        projections=student.projections,
        mapping=student.mapping,
        objective=student.objective,
        vocabulary=student.vocabulary,
    )
    return Stage(
        name=name,
        source=source,
        budget=Epochs(total=config.epochs),
        recipe=_recipe(config, config.schedule, config.lr),
        losses=intermediate.losses,
    )


def _recipe(config: TaskConfig, schedule: str, lr: float) -> Recipe:
    return Recipe(schedule=schedule_of(schedule, lr, config.warm_up_share), weight_decay=config.weight_decay)


def _save(setting: _Setting, state: State, worker: Worker) -> None:
    config, spec, student = setting.config, setting.spec, setting.student
    folder = Path(config.output)
    result = RunResult(
        command="task",
        task=spec.name,
        name=config.name,
        ablation=config.ablation,
        seed=config.seed,
        parameters=count_parameters(student.model),
        metric=spec.metrics[0],
        rows=len(setting.dev.labels),
        selected_on=setting.selection.origin,
        selected_by=selection_name(spec, config.select_by),
        baselines=baselines(spec, setting.dev.labels),
        test=None if setting.test is None else setting.test.scores(student.model, worker.device),
        labels=(setting.test.own if setting.test else setting.dev).label_scores(student.model, worker.device),
        teacher=config.teacher,
        teacher_column=config.teacher_column,
        teacher_dev=setting.teacher_dev,
        teacher_parameters=setting.teacher_parameters,
        mapping=student.mapping,
    )
    result = state.complete(result)
    save_classifier(student.model, student.tokenizer, spec, folder / "model", result, config.identity())
    if student.vocabulary is not None:
        # vocab.txt, for programs that read WordPiece vocabularies without transformers.
        student.tokenizer.backend_tokenizer.model.save(str(folder / "model"))
    if "prediction" not in config.stages:
        student.projections.save(folder / "model")
    write_result(folder, result)
