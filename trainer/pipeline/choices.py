"""Chooses samples and epochs from the size of the data, or to fit a time budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from shared.cli.progress import counted
from shared.embedded import EMBEDDED
from shared.errors import UsageError
from shared.label_quotas import LabelQuotas
from trainer.pipeline.config import BALANCED, MOST_SAMPLES_OF_A_ROW, DistillConfig, minutes_of

SAMPLES = 200_000
"""Samples per epoch in the student's stages, if there are enough rows."""
LEAST_SEEN = 60_000
"""Small data sets are repeated until the student has seen this many samples in its first stage."""
LEAST_PREDICTED = 300_000
"""The same for its prediction stage, if the teacher's logits are stored: on 2,426 MRPC pairs, 96,000 samples gave 72.5%
accuracy and 288,000 gave 75.1% (`docs/results.md`)."""
MAX_N_A, MAX_N_A_PAIRS, MAX_EPOCHS = 20, 4, 10
MINED_PAIRS, MAX_MINED_ROWS = 5, 20_000
"""On 2,426 MRPC pairs, 5 mined pairs for each raised a student's accuracy from 63% to 73% (`docs/results.md`). Larger
data sets have enough pairs of their own, and comparing all their texts would take too long."""
TEACHER_EPOCHS, MAX_TEACHER_EPOCHS, TEACHER_SEEN = 3, 6, 20_000
"""Teacher epochs; a small data set gets more, until the teacher has seen TEACHER_SEEN rows: on 2,668 MRPC pairs, 6
epochs gave 79.1% accuracy and 3 gave 75.6% (`docs/results.md`)."""
SCALES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03, 0.02)
MARGIN = 0.9
"""Share of the budget to plan for; the rest is slack in case the machine slows down."""
MIN_AUGMENT_ROWS = 200
LEAST_N_A = 2
"""To fit a budget, the samples of all rows are cut down to this before rows are dropped: on film reviews, 6 samples for
each of 2,408 rows taught a student more than 20 for each of 866 (`docs/results.md`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """Settings of the steps. augment_rows: number of rows to augment; None for all.

    annotates: whether the teacher's logits are stored before the student is trained. mined: new pairs per row of a pair
    task, which are not augmented (`trainer.data.mining`). n_a_per_label: LABEL=N each; samples_per_row: average per
    row, itself included, if labels have their own N_a.
    """

    n_a: int
    teacher_epochs: float
    epochs: float
    prediction_epochs: float
    max_length: int
    shard_rows: int
    student: str
    augment_rows: int | None = None
    annotates: bool = False
    n_a_per_label: tuple[str, ...] = ()
    samples_per_row: float | None = None
    mined: int = 0

    def rows(self, num_rows: int) -> int:
        """How many of `num_rows` rows the student learns from."""
        return min(self.augment_rows or num_rows, num_rows)

    def samples(self, rows: int) -> int:
        """Number of samples for `rows` rows, including the rows themselves and mined pairs."""
        return round(rows * ((self.samples_per_row or 1 + self.n_a) + self.mined))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Measured throughput of this machine, per second. start: seconds for a command to load its libraries.

    teacher_step, student_step: rows trained on; teacher_forward: rows scored by the teacher; augment: rows augmented,
    after `augment_fixed` seconds of start-up; annotate: rows annotated by a teacher whose hidden states cannot be
    learned, else None.
    """

    teacher_step: float
    teacher_forward: float
    student_step: float
    augment: float
    augment_fixed: float
    start: float
    annotate: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSize:
    """What the choices depend on. num_dev, num_test: rows scored; student: --student, resolved.

    answers_only: whether only the teacher's logits can be learned, not its hidden states (see
    `trainer.teacher_states`). num_unlabelled: rows that only the student trains on. label_rows: labelled rows per
    label.
    """

    num_train: int
    num_dev: int
    num_test: int
    has_pairs: bool
    max_length: int
    student: str
    answers_only: bool = False
    num_unlabelled: int = 0
    label_rows: Mapping[str, int] = field(default_factory=dict)

    @property
    def num_augmented(self) -> int:
        """Rows that may be augmented."""
        return self.num_train + self.num_unlabelled


def default_choices(config: DistillConfig, task: TaskSize) -> Choices:
    """Choices that depend only on the number of rows, so that they are the same on every machine."""
    return _scaled(config, 1.0, task)


def fitting_choices(config: DistillConfig, rates: Rates, task: TaskSize) -> Choices:
    """The largest choices that fit --budget. Raises UsageError naming the minimum when it is too small."""
    budget = minutes_of(str(config.budget))
    least = math.inf
    for scale in SCALES:
        choices = _scaled(config, scale, task)
        minutes = sum(estimate(config, choices, rates, task).values())
        if minutes <= budget * MARGIN:
            return choices
        least = min(least, minutes)
    raise UsageError(
        f"--budget {config.budget} is too small: the shortest possible run takes about {least / MARGIN:.0f} minutes "
        f"({task.num_train:,} training rows). Use --budget {math.ceil(least / MARGIN)}m or more, or fewer rows"
    )


def estimate(config: DistillConfig, choices: Choices, rates: Rates, task: TaskSize) -> Mapping[str, float]:
    """Minutes per step. Steps that share the processor are counted one after the other."""
    rows = choices.rows(task.num_augmented)
    samples = choices.samples(rows)
    seen = samples * (choices.epochs + choices.prediction_epochs)
    # With stored logits, or answers that came with the data, the prediction stage does not run the teacher.
    answers_live = not (choices.annotates or config.teacher_column)
    answered = seen if answers_live else samples * choices.epochs
    dev, test = (count / rates.teacher_forward for count in (task.num_dev, task.num_test))
    seconds = {
        "teacher": rates.start
        + choices.teacher_epochs * (task.num_train / rates.teacher_step + EVALUATIONS * dev)
        + test,
        "augment": rates.start + rates.augment_fixed + rows / rates.augment,
        "annotate": rates.start + samples / (rates.annotate or rates.teacher_forward),
        "student": rates.start
        + answered / rates.teacher_forward
        + seen / rates.student_step
        # The teacher is scored once; the student runs about five times as fast.
        + (EVALUATIONS * choices.prediction_epochs * 0.2 + 1) * dev
        + 1.2 * test,
        "export": 4 * rates.start,
        "report": 4 * rates.start,
    }
    wanted = {
        "teacher": not (config.teacher or config.teacher_column),
        "annotate": choices.annotates,
        "export": config.onnx,
        "report": config.report,
    }
    for name, is_wanted in wanted.items():
        if not is_wanted:
            del seconds[name]
    seconds["student"] *= config.seeds
    return {name: value / 60 for name, value in seconds.items()}


EVALUATIONS = 2
"""Evaluations per epoch in each training step of the plan."""


def _scaled(config: DistillConfig, scale: float, task: TaskSize) -> Choices:
    total = task.num_augmented
    rows = total
    if scale < 1:
        rows = min(rows, max(int(scale * SAMPLES / (1 + LEAST_N_A)), MIN_AUGMENT_ROWS))
    most = MAX_N_A_PAIRS if task.has_pairs else MAX_N_A
    n_a = min(max(round(scale * SAMPLES / rows) - 1, 1), most)
    n_a = n_a if config.n_a is None else config.n_a
    quotas = _quotas(config, n_a, task)
    average = _samples_per_row(quotas, n_a, task)
    mined = _mined(config, rows, average or 1 + n_a, scale, task)
    per_pass = rows * ((average or 1 + n_a) + mined)
    epochs = min(max(round(scale * LEAST_SEEN / per_pass), 1), MAX_EPOCHS)
    has_logits = task.student == EMBEDDED or task.answers_only or config.teacher_column is not None
    patient = round(scale * LEAST_PREDICTED / per_pass) if has_logits else 0
    chosen = Choices(
        n_a=n_a,
        teacher_epochs=_teacher_epochs(task.num_train, scale),
        epochs=float(epochs),
        prediction_epochs=float(min(max(2 * epochs, patient), MAX_EPOCHS)),
        max_length=task.max_length,
        shard_rows=shard_rows(rows),
        student=task.student,
        n_a_per_label=quotas.options(),
        samples_per_row=average,
        mined=mined,
        augment_rows=rows if rows < total else None,
    )
    choices = _as_told(config, chosen, total)
    if choices.augment_rows is not None:
        # Only the first rows of the job's input are augmented, and mined pairs come after them.
        choices = replace(choices, mined=0)
    return replace(choices, annotates=_annotates(config, choices, task))


def _annotates(config: DistillConfig, choices: Choices, task: TaskSize) -> bool:
    """Whether to store the teacher's logits: if only they can be learned, if --balance counts them, or to save time.

    The prediction stage reads the same samples in every epoch. An embedded student waits for all of them anyway; others
    train while the job is still running.
    """
    saves_time = choices.prediction_epochs > 1 and task.student == EMBEDDED and not config.teacher_column
    return task.answers_only or saves_time or config.balance


def _mined(config: DistillConfig, rows: int, samples_per_row: float, scale: float, task: TaskSize) -> int:
    """New pairs per row: a small data set shows few of the ways in which two texts can relate.

    Tested only for single-label classification with a teacher model.
    """
    is_tried = task.has_pairs and not (config.teacher_column or config.regression or config.multi_label)
    if config.mined_pairs is not None or not is_tried or task.num_unlabelled:
        return config.mined_pairs or 0
    return min(max(round(scale * SAMPLES / rows - samples_per_row), 0), MINED_PAIRS) if rows <= MAX_MINED_ROWS else 0


def _quotas(config: DistillConfig, n_a: int, task: TaskSize) -> LabelQuotas:
    """N_a of each label that has its own."""
    if config.n_a_per_label != BALANCED:
        return LabelQuotas.parse(config.n_a_per_label)
    wanted = (1 + n_a) * max(task.label_rows.values(), default=0)
    most = max(n_a, MOST_SAMPLES_OF_A_ROW)
    return LabelQuotas({label: min(round(wanted / count) - 1, most) for label, count in task.label_rows.items()})


def _samples_per_row(quotas: LabelQuotas, n_a: int, task: TaskSize) -> float | None:
    """Average samples per row, itself included; None if all labels use the same N_a.

    A row with several labels counts once for each.
    """
    if not quotas.numbers:
        return None
    labelled = sum(count * (1 + quotas.numbers.get(label, n_a)) for label, count in task.label_rows.items())
    share = task.num_train / max(task.num_augmented, 1)
    return share * labelled / max(sum(task.label_rows.values()), 1) + (1 - share) * (1 + n_a)


def _teacher_epochs(num_train: int, scale: float) -> float:
    """Teacher epochs: the best checkpoint is kept, so extra epochs only cost time."""
    if scale >= 0.5:
        return float(min(max(round(TEACHER_SEEN / num_train), TEACHER_EPOCHS), MAX_TEACHER_EPOCHS))
    return 2.0 if scale >= 0.25 else 1.0 if scale >= 0.05 else 0.5


def _as_told(config: DistillConfig, choices: Choices, num_rows: int) -> Choices:
    names = ("teacher_epochs", "epochs", "prediction_epochs", "augment_rows")
    told = {name: value for name in names if (value := getattr(config, name)) is not None}
    choices = replace(choices, **told)
    return replace(choices, shard_rows=shard_rows(choices.rows(num_rows)))


def shard_rows(rows: int) -> int:
    """Rows per shard: enough shards to start training early, few enough that each is worth its overhead."""
    return min(max(rows // 16, 16), 512)


def choice_lines(config: DistillConfig, choices: Choices, num_train: int, num_unlabelled: int = 0) -> Sequence[str]:
    """The choices in words."""
    rows = choices.rows(num_train + num_unlabelled)
    if config.teacher_column:
        teacher = f"the answers in column {config.teacher_column!r}; hidden states come from the embedded encoder"
    else:
        teacher = config.teacher or f"{counted(choices.teacher_epochs, 'epoch')} on {num_train:,} rows"
    own = f" (except {', '.join(choices.n_a_per_label)})" if choices.n_a_per_label else ""
    mined = f", plus {choices.mined} mined pairs each" if choices.mined else ""
    last = config.seed + config.seeds - 1
    several = f"{config.seeds} students, seeds {config.seed} to {last}; the best on the validation rows is kept"
    return [
        f"teacher: {teacher}",
        f"augmentation: {rows:,} rows, {choices.n_a} samples each{own}{mined}",
        f"student {choices.student}: {choices.epochs:g} intermediate + {choices.prediction_epochs:g} prediction "
        f"epochs on {choices.samples(rows):,} samples",
        *([several] if config.seeds > 1 else []),
    ]
