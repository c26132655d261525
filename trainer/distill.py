"""`trainer task`: a student from a fine-tuned teacher and the shards of an augmentation job, in two stages.

Intermediate distillation teaches the student the teacher's embeddings, hidden states and attention scores at the mapped
layers (eq. 7-9); prediction distillation its logits (eq. 10). The teacher runs in eval mode without gradients, only as
far up as its highest mapped layer, and not at all where the shards carry its logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shared.cli.command_line import CommandResult
from shared.cli.progress import format_seconds
from shared.errors import ManifestError, UsageError
from shared.glue import get_task
from trainer.annotate import annotations_uri
from trainer.checkpoint import open_run, read_result, write_result
from trainer.config import StudentConfig, TaskConfig
from trainer.data.batches import Batch, tokenize
from trainer.data.stream import Augmented, ShardStream, open_augmented
from trainer.data.tasks import Table, TaskSpec, read_table, sequence_length
from trainer.evaluation import in_precision, predict
from trainer.loop import Losses, Run, Stage, State, Worker, train
from trainer.losses import attention_loss, embedding_loss, hidden_loss, prediction_loss, regression_loss
from trainer.mapping import map_layers
from trainer.metrics import score, selection_score
from trainer.models import (
    Projections,
    check_same_vocabulary,
    count_parameters,
    fingerprint,
    load_classifier,
    load_student,
    load_tokenizer,
    new_student,
    parse_size,
    save_classifier,
    teacher_spec,
)
from trainer.scores import classify, encode
from trainer.workers import run_to_result


@dataclass(frozen=True, slots=True)
class IntermediateDistillation:
    """Equation 11 for layers 0..M: what the student's insides should look like."""

    teacher: Any
    student: Any
    projections: Projections
    mapping: tuple[int, ...]

    def losses(self, batch: Batch) -> Losses:
        """Attention, hidden and embedding terms of a part of a batch."""
        with torch.no_grad(), torch.autocast(batch.input_ids.device.type, enabled=False):
            theirs = encode(
                self.teacher,
                batch.input_ids,
                batch.token_type_ids,
                batch.model_mask,
                set(self.mapping),
                max(self.mapping),
            )
        layers = range(1, len(self.mapping) + 1)
        own = encode(self.student, batch.input_ids, batch.token_type_ids, batch.model_mask, layers)
        states, scores = theirs.hidden_states, theirs.attention_scores
        return {
            "attention": batch.pair_share
            * attention_loss(
                [own.attention_scores[m] for m in layers], [scores[layer] for layer in self.mapping], batch.mask
            ),
            "hidden": batch.piece_share
            * hidden_loss(
                own.hidden_states[1:],
                [states[layer] for layer in self.mapping],
                self.projections.w_h(len(self.mapping)),
                batch.mask,
            ),
            "embedding": batch.piece_share
            * embedding_loss(own.hidden_states[0], states[0], self.projections.w_e, batch.mask),
        }


@dataclass(frozen=True, slots=True)
class PredictionDistillation:
    """Equation 11 for layer M + 1: the student's logits against the teacher's."""

    teacher: Any
    student: Any
    is_regression: bool
    temperature: float

    def losses(self, batch: Batch) -> Losses:
        """The prediction term of a part of a batch; the teacher runs only if the batch has no logits."""
        wanted = self._teacher_logits(batch) if batch.logits is None else batch.logits
        states = encode(self.student.bert, batch.input_ids, batch.token_type_ids, batch.model_mask)
        logits = classify(self.student, states)
        loss = (
            regression_loss(logits, wanted) if self.is_regression else prediction_loss(logits, wanted, self.temperature)
        )
        return {"prediction": batch.row_share * loss}

    def _teacher_logits(self, batch: Batch) -> Tensor:
        with torch.no_grad(), torch.autocast(batch.input_ids.device.type, enabled=False):
            states = encode(self.teacher.bert, batch.input_ids, batch.token_type_ids, batch.model_mask)
            return classify(self.teacher, states)


def run_command(config: TaskConfig) -> CommandResult:
    """Distil, or go on distilling; leaves OUTPUT/model, metrics.jsonl, result.json. Raises ExpectedError."""
    folder = open_run(config.output, "task", config.identity(), {"ablation": config.ablation, "name": config.name})
    if read_result(folder) is None:
        # Whatever is wrong with the inputs is said before workers start.
        augmented = open_augmented(config.augmented, config.follow_timeout)
        if config.task and augmented.task and get_task(config.task) != get_task(augmented.task):
            raise ManifestError(
                f"--augmented {config.augmented} holds samples of {augmented.task}, not of {config.task}"
            )
    result = run_to_result(_work, config, folder)
    scores = ", ".join(f"{name} {value:.4f}" for name, value in result["dev"].items()) or "not scored"
    text = (
        f"student of {result['parameters']:,} parameters after {result['samples']:,} samples in "
        f"{format_seconds(result['seconds'])}: {scores}\n{folder / 'model'}"
    )
    return CommandResult(result, text)


def _work(config: TaskConfig, worker: Worker) -> None:
    """One worker's part of a run; the first one writes."""
    folder = Path(config.output)
    torch.manual_seed(config.seed)
    augmented = open_augmented(config.augmented, config.follow_timeout)
    teacher = load_classifier(config.teacher)
    spec = teacher_spec(teacher, config.task, config.teacher)
    table = read_table(config.dev, config)
    tokenizer = load_tokenizer(config.teacher)
    length = sequence_length(config.max_length, table.has_pairs)
    student, projections, mapping = make_student(config, teacher, spec.num_logits, tokenizer)
    teacher = in_precision(teacher.to(worker.device).eval().requires_grad_(False), worker.dtype)
    student.to(worker.device)
    projections.to(worker.device)
    dev = table.examples(spec)
    dev_pieces = tokenize(tokenizer, dev.texts_a, dev.texts_b, length)

    def evaluate_model(model: Any) -> dict[str, float]:
        return score(spec, predict(model, dev_pieces, worker.device), dev.labels)

    def evaluate() -> tuple[float, dict[str, float]]:
        metrics = evaluate_model(student)
        return selection_score(spec, metrics), metrics

    run = Run(
        config, folder, worker, {"student": student, "projections": projections}, student.config.pad_token_id, evaluate,
        {"augmented": augmented.fingerprint, "teacher": fingerprint(config.teacher)},
    )  # fmt: skip
    intermediate = IntermediateDistillation(teacher.bert, student.bert, projections, mapping)
    prediction = PredictionDistillation(teacher, student, spec.labels is None, config.temperature)
    stages = _stages(config, augmented, spec, length, intermediate, prediction)
    state = train(run, stages)
    if run.is_first:
        teacher_dev = evaluate_model(teacher)
        facts = _result(config, state, student, spec, table, teacher_dev, count_parameters(teacher), mapping)
        save_classifier(student, tokenizer, spec, folder / "model", facts | {"recipe": config.identity()})
        if "prediction" not in config.stages:
            projections.save(folder / "model")
        write_result(folder, facts)


def make_student(
    config: StudentConfig, teacher: Any, num_logits: int, tokenizer: Any
) -> tuple[Any, Projections, tuple[int, ...]]:
    """Student, its projections, and g(m). teacher: a model with a `.bert`. Raises UsageError, ModelError."""
    size = parse_size(config.student)
    encoder = teacher.bert
    depth = encoder.config.num_hidden_layers
    if size is not None:
        mapping = map_layers(config.mapping, size.layers, depth)
        student = new_student(config, size, encoder, mapping, num_logits)
    else:
        if not Path(config.student).is_dir():
            raise UsageError(
                f"--student {config.student}: neither a size (tinybert4, tinybert6, M,d',FFN,heads) nor a folder"
            )
        check_same_vocabulary(
            load_tokenizer(config.student), tokenizer, config.student, str(encoder.config._name_or_path)
        )
        student = load_student(config.student, num_logits, config.dropout)
        mapping = map_layers(config.mapping, student.config.num_hidden_layers, depth)
    if student.config.num_attention_heads != encoder.config.num_attention_heads:
        raise UsageError(
            f"--student {config.student} has {student.config.num_attention_heads} attention heads, the teacher "
            f"{encoder.config.num_attention_heads}: the attention loss needs equal numbers"
        )
    projections = Projections(config.projection, len(mapping), student.config.hidden_size, encoder.config.hidden_size)
    if size is None:
        projections.begin_with(config.student)
    return student, projections, mapping


def _stages(
    config: TaskConfig, augmented: Augmented, spec: TaskSpec, length: int, intermediate: IntermediateDistillation,
    prediction: PredictionDistillation,
) -> list[Stage]:  # fmt: skip
    def stream(stage: str) -> ShardStream:
        is_prediction = stage == "prediction"
        batch_size = (config.prediction_batch_size if is_prediction else None) or config.batch_size
        annotations = (
            annotations_uri(config.augmented, config.teacher, length) if config.annotated and is_prediction else None
        )
        # The two stages see the samples in different orders.
        seed = config.seed * 2 + is_prediction
        return ShardStream(
            augmented, spec, config.teacher, length, batch_size, config.window_shards, seed, config.follow_timeout,
            config.n_a, annotations,
        )  # fmt: skip

    known = {
        "intermediate": Stage("intermediate", stream("intermediate"), config.epochs, config.lr, intermediate.losses, 0),
        "prediction": Stage(
            "prediction",
            stream("prediction"),
            config.prediction_epochs,
            config.prediction_lr,
            prediction.losses,
            config.evaluations,
        ),
    }
    return [known[name] for name in config.stages]


def _result(
    config: TaskConfig, state: State, student: Any, spec: TaskSpec, table: Table, teacher_dev: dict[str, float],
    teacher_parameters: int, mapping: Sequence[int],
) -> dict[str, Any]:  # fmt: skip
    return state.facts() | {
        "command": "task",
        "task": spec.name,
        "name": config.name,
        "ablation": config.ablation,
        "seed": config.seed,
        "metric": spec.metrics[0],
        "rows": len(table.rows),
        "parameters": count_parameters(student),
        "teacher": config.teacher,
        "teacher_dev": teacher_dev,
        "teacher_parameters": teacher_parameters,
        "mapping": list(mapping),
    }
