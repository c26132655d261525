"""The teacher of `trainer task`: the student learns its hidden states and logits, or its logits only.

Hidden states come from a BERT, or from an encoder that can be converted to one (`trainer.conversion`) if the student
uses its tokens. Any other classifier has other tokens or layers than the student. Its logits come from
`trainer annotate`; the intermediate stage then learns the hidden states of the embedded encoder, which also taught the
embedded student. The same holds for answers that came with the data (--teacher-column).
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import Any

from shared.embedded import EMBEDDED, resolve_encoder
from shared.errors import InputError, UsageError
from shared.glue import get_task
from trainer.any_classifier import AnyClassifier, Floats, load_any_classifier
from trainer.config import TaskConfig
from trainer.data.augmented import Augmented
from trainer.data.given_answers import GivenAnswers, carried_name, form_of, form_of_sets
from trainer.data.tasks import Table, TaskSpec, given_spec, read_table, sequence_length
from trainer.data.validation import source_table
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
from trainer.teacher_states import load_with_states, why_no_states

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTeacher:
    """What a student learns from.

    states: `BertForSequenceClassification` whose hidden states the intermediate stage learns, and whose logits the
    prediction stage learns unless they were stored; tokenizer: its tokenizer, the student's too. identity,
    tokenizer_identity: fingerprints of the classifier that gives the logits. converted: whether `states` was converted
    from a classifier of another architecture and shares its weights. answers: the classifier that gives the logits if
    it is not `states`; path: its --teacher.
    given: the column of answers, if it replaces a classifier; parameters is None then.
    """

    states: Any
    tokenizer: Any
    spec: TaskSpec
    path: str
    parameters: int | None
    identity: str
    tokenizer_identity: str
    converted: bool = False
    answers: AnyClassifier | None = None
    given: GivenAnswers | None = None

    @property
    def learned(self) -> str:
        """Identity that a run is bound to: a run begun on the embedded encoder's states cannot resume on these."""
        return f"{self.identity}, its states" if self.converted else self.identity

    def input_length(self, requested: int | None, has_pairs: bool) -> tuple[int, int]:
        """Longest input in tokens of the student and of the teacher's classifier. Raises UsageError, ModelError."""
        default = sequence_length(None, has_pairs)
        if self.converted:
            # The same limit as in `trainer annotate`.
            default = min(default, int(self.tokenizer.model_max_length))
        own = fitting_length(requested, default, self.states.config, self.tokenizer, self.path)
        return own, own if self.answers is None else self.answers.fitting_length(requested, has_pairs)

    def given_logits(self, table: Table) -> Floats | None:
        """(rows, C) answers that came with labelled rows, None if they have none. Raises InputError."""
        if self.given is None:
            return None
        own = table.cells(self.given.column)
        cells = table.cells(carried_name(self.given.column)) if own is None else own
        return None if cells is None else self.given.logits(cells, table.where)

    def scores(self, table: Table, max_length: int, device: str, name: str = "teacher_dev") -> dict[str, float] | None:
        """Metric -> value on labelled rows, read with the teacher's own tokenizer, in fp32. name: event in the log.

        max_length: in tokens. None for rows without --teacher-column. Raises InputError for a label outside the task's
        classes.
        """
        if self.given is not None:
            given = self.given_logits(table)
            if given is None:
                fields: dict[str, Any] = {"file": table.path, "column": self.given.column}
                logger.info("no_answers_to_score", extra={"fields": fields})
                return None
            return score_answers(self.spec, given, table.examples(self.spec).labels, name)
        if self.answers is None:
            return score_teacher(DevSet.of(table, self.spec, self.tokenizer, max_length), self.states, device, name)
        examples = table.examples(self.spec)
        logits = self.answers.logits(examples.texts_a, examples.texts_b, max_length)
        return score_answers(self.spec, logits, examples.labels, name)


def load_teacher(config: TaskConfig, augmented: Augmented) -> TaskTeacher:
    """The model of --teacher, in fp32, or the answers of --teacher-column. Raises ModelError, UsageError.

    For --teacher-column, waits for the first shard, and without --dev for all of them; raises InputError, TrainingError
    and ShardError, too.
    """
    if config.teacher is None:
        return _given_teacher(config, augmented)
    why = why_no_states(config.teacher, config.student)
    if why is None:
        model, states, tokenizer = load_with_states(config.teacher)
        if states is not model:
            named = f"{config.teacher} ({model.config.model_type})"
            logger.info("states_of_teacher", extra={"fields": {"teacher": named}})
        return TaskTeacher(
            states=states,
            tokenizer=tokenizer,
            spec=teacher_spec(model, config.task, config.teacher, label_map=config.label_map),
            path=config.teacher,
            parameters=count_parameters(model),
            identity=fingerprint(model),
            tokenizer_identity=tokenizer_fingerprint(tokenizer),
            converted=states is not model,
        )
    answers = load_any_classifier(config.teacher, device=config.device, dtype="fp32")
    spec = teacher_spec(answers.model, config.task, config.teacher, label_map=config.label_map)
    encoder = resolve_encoder(EMBEDDED)
    kind = answers.model.config.model_type
    fields: dict[str, Any] = {"teacher": f"{config.teacher} ({kind})", "states": "the embedded encoder's", "why": why}
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


def _given_teacher(config: TaskConfig, augmented: Augmented) -> TaskTeacher:
    """The answers of --teacher-column, and the embedded encoder for the hidden states."""
    column, timeout = str(config.teacher_column), config.follow_timeout
    name = carried_name(column)
    first = source_table(augmented, timeout, name, num_shards=1)
    cells = first.cells(name)
    if cells is None:
        raise InputError(
            f"{config.augmented} has no column {name}: --teacher-column must name a column of the augmentation job's "
            "--input, which the job copies into its shards"
        )
    labels = read_table(config.dev, config) if config.dev else source_table(augmented, timeout)
    form = config.teacher_form
    if form == "auto":
        is_number = config.task is not None and get_task(config.task).labels is None
        kind = form_of_sets if labels.multi_label else form_of
        form = "number" if is_number else kind(cells, first.where, column)
    spec = given_spec(
        config,
        [row.label for row in labels.rows],
        labels.path,
        is_number=form == "number",
        label_names=labels.label_names,
    )
    given = GivenAnswers(
        column=column, form=form, labels=spec.labels, multi_label=spec.multi_label, separator=config.label_separator
    )
    encoder = resolve_encoder(EMBEDDED)
    tokenizer = load_tokenizer(encoder)
    fields: dict[str, Any] = {"column": column, "form": form, "states": "the embedded encoder's"}
    logger.info("answers_given", extra={"fields": fields | ({"classes": spec.labels} if spec.labels else {})})
    return TaskTeacher(
        states=load_classifier(encoder, spec.num_logits),
        tokenizer=tokenizer,
        spec=spec,
        path=EMBEDDED,
        parameters=None,
        identity=hashlib.sha256(given.identity().encode()).hexdigest(),
        tokenizer_identity=tokenizer_fingerprint(tokenizer),
        given=given,
    )


def check_answers(config: TaskConfig) -> None:
    """Raises UsageError when the teacher's answers are needed and only `trainer annotate` can give them."""
    if config.teacher is None or config.annotated or "prediction" not in config.stages:
        return
    if (why := why_no_states(config.teacher, config.student)) is not None:
        raise UsageError(
            f"--teacher {config.teacher} cannot run alongside the student, because {why}. Store its logits first "
            f"(python -m trainer annotate --augmented {config.augmented} --teacher {config.teacher}), then add "
            "--annotated"
        )
