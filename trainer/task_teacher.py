"""The teacher of `trainer task`: a BERT, whose states and answers the student learns, or any other classifier.

A classifier of another architecture has other tokens and other layers than the student. Its answers come from
`trainer annotate`; the intermediate stage then learns the states of the embedded encoder, which also taught the
embedded student.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from shared.embedded import EMBEDDED, resolve_encoder
from shared.errors import UsageError
from trainer.any_classifier import AnyClassifier, is_bert, load_any_classifier
from trainer.config import TaskConfig
from trainer.data.tasks import Table, TaskSpec, sequence_length
from trainer.evaluation import DevSet, score_answers, score_teacher
from trainer.models import (
    count_parameters,
    fingerprint,
    fitting_length,
    load_classifier,
    load_tokenizer,
    teacher_spec,
    tokenizer_fingerprint,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTeacher:
    """What a student learns from.

    states: `BertForSequenceClassification` whose encoder the intermediate stage reads, and whose logits the prediction
    stage reads unless they were stored; tokenizer: its tokenizer, the student's too. identity, tokenizer_identity:
    fingerprints of the classifier that answers. answers: that classifier if it is not `states`; path: its --teacher.
    """

    states: Any
    tokenizer: Any
    spec: TaskSpec
    path: str
    parameters: int
    identity: str
    tokenizer_identity: str
    answers: AnyClassifier | None = None

    def input_length(self, requested: int | None, has_pairs: bool) -> tuple[int, int]:
        """Longest input in tokens of the student, and of the classifier that answers. Raises UsageError, ModelError."""
        default = sequence_length(None, has_pairs)
        own = fitting_length(requested, default, self.states.config, self.tokenizer, self.path)
        return own, own if self.answers is None else self.answers.fitting_length(requested, has_pairs)

    def scores(self, table: Table, max_length: int, device: str, name: str = "teacher_dev") -> dict[str, float]:
        """Metric -> value on labelled rows, read with the teacher's own tokenizer, in fp32. name: event in the log.

        max_length: in tokens. Raises InputError for a label outside the task's classes.
        """
        if self.answers is None:
            return score_teacher(DevSet.of(table, self.spec, self.tokenizer, max_length), self.states, device, name)
        examples = table.examples(self.spec)
        logits = self.answers.logits(examples.texts_a, examples.texts_b, max_length)
        return score_answers(self.spec, logits, examples.labels, name)


def load_teacher(config: TaskConfig) -> TaskTeacher:
    """The model of --teacher, in fp32. Raises ModelError, UsageError."""
    if is_bert(config.teacher):
        model = load_classifier(config.teacher)
        tokenizer = load_tokenizer(config.teacher, "--teacher")
        return TaskTeacher(
            states=model,
            tokenizer=tokenizer,
            spec=teacher_spec(model, config.task, config.teacher, label_map=config.label_map),
            path=config.teacher,
            parameters=count_parameters(model),
            identity=fingerprint(model),
            tokenizer_identity=tokenizer_fingerprint(tokenizer),
        )
    answers = load_any_classifier(config.teacher, device=config.device, dtype="fp32")
    spec = teacher_spec(answers.model, config.task, config.teacher, label_map=config.label_map)
    encoder = resolve_encoder(EMBEDDED)
    kind = answers.model.config.model_type
    fields: dict[str, Any] = {"teacher": f"{config.teacher} ({kind})", "states": "the embedded encoder's"}
    logger.info("answers_only", extra={"fields": fields})
    return TaskTeacher(
        states=load_classifier(encoder, answers.model.config.num_labels, "--teacher"),
        tokenizer=load_tokenizer(encoder, "--teacher"),
        spec=spec,
        path=config.teacher,
        parameters=count_parameters(answers.model),
        identity=fingerprint(answers.model),
        tokenizer_identity=tokenizer_fingerprint(answers.tokenizer),
        answers=answers,
    )


def check_answers(config: TaskConfig) -> None:
    """Raises UsageError when the teacher's answers are needed and only `trainer annotate` can give them."""
    if "prediction" in config.stages and not config.annotated and not is_bert(config.teacher):
        raise UsageError(
            f"--teacher {config.teacher} is not a BERT model, so it does not read the student's tokens. Store its "
            f"answers first (python -m trainer annotate --augmented {config.augmented} --teacher {config.teacher}), "
            "then add --annotated"
        )
