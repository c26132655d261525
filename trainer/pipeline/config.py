"""Configuration of `trainer distill`."""

from __future__ import annotations

import re
from copy import copy
from typing import Any, ClassVar

from pydantic import field_validator, model_validator

from shared.cli.config import CommandConfig, identity, runtime
from shared.cli.table_format import LabelSets, TableFormat
from shared.label_quotas import LabelQuotas
from shared.params import AugmentParams, Pairs
from trainer.config import HARD_LABELS, ComputeConfig, GivenAnswersConfig

BALANCED = ("balance",)
"""Value of --n-a-per-label that sets each label's number from its number of rows."""
MOST_SAMPLES_OF_A_ROW = 100
"""Maximum for a row of a rare label when balancing: more would only be variations of the same few words."""
_PAIRS: Any = copy(AugmentParams.model_fields["pairs"])


class ChoicesConfig(CommandConfig):
    """What `trainer distill` chooses by the size of the data, unless it is told."""

    group: ClassVar[str] = "Training"

    n_a: int | None = identity(None, "N_a: samples per source text (default: chosen by the number of rows).", ge=0)
    n_a_per_label: tuple[str, ...] = identity(
        (),
        "N_a for rows with these labels, each as LABEL=N; or balance: more samples for rarer labels, up to "
        f"{MOST_SAMPLES_OF_A_ROW} per row, so that every label has as many as the most frequent one.",
        metavar="LABEL=N",
    )
    pairs: Pairs = _PAIRS
    mined_pairs: int | None = identity(
        None,
        "For text pairs, new pairs per row: its first text with second texts of other rows that share rare words. The "
        "teacher labels them (default: chosen by the number of rows).",
        ge=0,
        le=100,
    )
    balance: bool = identity(
        False,
        "Repeat or drop samples, so that the teacher's answers have the same class distribution as on the rows "
        "themselves.",
    )
    augment_rows: int | None = identity(
        None, "Rows to augment and train the student on (default: all, or as many as --budget allows).", ge=1
    )
    teacher_epochs: float | None = identity(
        None, "Epochs of fine-tuning the teacher (default 3, up to 6 for small data).", gt=0
    )
    epochs: float | None = identity(None, "Epochs of the student's intermediate stage (default: by data size).", gt=0)
    prediction_epochs: float | None = identity(
        None, "Epochs of the student's prediction stage (default: by data size).", gt=0
    )
    budget: str | None = identity(
        None,
        "Time budget for everything, such as 20m or 2h; sets rows, samples and epochs to fit.",
        metavar="TIME",
    )
    batch_size: int = identity(32, "Examples per training step.", ge=1)
    teacher_lr: float = identity(6e-5, "Peak learning rate of the teacher.", gt=0)
    lr: float = identity(1e-3, "Peak learning rate of the student's intermediate stage.", gt=0)
    prediction_lr: float = identity(5e-4, "Peak learning rate of the student's prediction stage.", gt=0)
    hard_label_weight: float = identity(0.0, f"{HARD_LABELS}.", ge=0, le=1)
    max_length: int | None = identity(
        None, "Maximum tokens per input (default: enough for 98% of the texts).", ge=8, le=512
    )
    seed: int = identity(0, "Seed for samples, sample order, dropout and new weights.", ge=0, lt=2**63)
    seeds: int = identity(
        1,
        "Number of students to train, with seeds from --seed upwards; the one with the best validation score is kept.",
        ge=1,
        le=20,
    )

    @field_validator("n_a_per_label")
    @classmethod
    def _quotas_are_clear(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value != BALANCED:
            LabelQuotas.parse(value)
        return value

    @field_validator("budget")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        if value is not None:
            minutes_of(value)
        return value


class DistillConfig(ChoicesConfig, ComputeConfig, GivenAnswersConfig, TableFormat, LabelSets):
    """Options of `trainer distill`."""

    group: ClassVar[str] = "Distillation"

    data: str = identity(..., "Labelled file: TSV, CSV, JSONL, Parquet or Arrow.")
    output: str = runtime(..., "Output folder, or s3://, gs:// or az:// prefix. An interrupted run resumes from it.")
    text_column: tuple[str, ...] = identity(
        (),
        "Text column, by name or 0-based index; two for text pairs (default: guessed from the names, if unambiguous).",
        max_length=2,
    )
    label_column: str | None = identity(
        None, "Label column, by name or 0-based index (default: guessed from the names, if unambiguous)."
    )
    regression: bool = identity(False, "Predict a number instead of a class.")
    dev: str | None = identity(None, "Validation file, on which checkpoints are chosen (default: a tenth of the rows).")
    test: str | None = identity(None, "Test file for the final scores (default: a tenth of the rows).")
    unlabelled: tuple[str, ...] = identity(
        (),
        "Files of unlabelled text, with the text columns of --data. They are augmented and labelled by the teacher "
        "like the rest, and the student learns from them.",
    )
    teacher: str | None = identity(None, "Fine-tuned teacher: a folder or a hub id (default: fine-tune --encoder).")
    encoder: str = identity("embedded", "BERT model to fine-tune as the teacher: embedded, a folder or a hub id.")
    student: str = identity(
        "auto",
        "Student: embedded, a folder, or a size M,d',FFN,heads (default auto: embedded if the teacher has the same "
        "vocabulary, otherwise a new one of 3 layers).",
    )
    mlm: str = identity("embedded", "Masked LM of the augmentation job: embedded, a folder or a hub id.")
    glove: str = identity("embedded", "Word vectors of the augmentation job: embedded, a file or a folder.")
    drop_rare: bool = identity(False, "Drop rows of classes that have too few, instead of rejecting the file.")
    truncate: bool = identity(False, "Continue even if most texts are too long for the models and get truncated.")
    any_language: bool = identity(False, "Continue even if the teacher's vocabulary hardly covers the text.")
    address: str = runtime("auto", "Ray cluster of the augmentation job: local, or auto (RAY_ADDRESS, else local).")
    onnx: bool = runtime(True, "Export the student to ONNX, fp32 and int8.")
    report: bool = runtime(True, "Write the report, and time the student against its teacher.")
    dry_run: bool = runtime(False, "Print the plan and the estimate, then stop.")
    estimate: bool = runtime(True, "Benchmark this machine for a few seconds and print minutes per step.")

    @model_validator(mode="after")
    def _every_student_has_a_seed(self) -> DistillConfig:
        if self.seed + self.seeds > 2**63:
            raise ValueError(f"--seeds {self.seeds}: --seed {self.seed} is too large for that many seeds")
        return self

    @model_validator(mode="after")
    def _a_teacher_answers(self) -> DistillConfig:
        if self.mined_pairs and self.augment_rows is not None:
            # Mined pairs come last in the job's input, and --augment-rows keeps the first rows.
            raise ValueError("--mined-pairs needs all rows, but --augment-rows leaves some out: use one of the two")
        if self.mined_pairs and self.teacher_column is not None:
            raise ValueError("--mined-pairs needs a teacher model, which --teacher-column replaces: use one of the two")
        if self.balance and (self.teacher_column is not None or self.regression or self.multi_label):
            raise ValueError("--balance needs a teacher model that predicts one class per row")
        if self.unlabelled and self.teacher_column is not None:
            raise ValueError("--unlabelled needs a teacher model, which --teacher-column replaces: use one of the two")
        return self

    @model_validator(mode="after")
    def _answers_fit_the_task(self) -> DistillConfig:
        if self.teacher_column is not None and self.teacher_form not in ("auto", "number") and self.regression:
            raise ValueError(f"--teacher-form {self.teacher_form} is for classes, but --regression predicts a number")
        if self.regression and self.n_a_per_label:
            raise ValueError("--n-a-per-label is for classes, but --regression predicts a number")
        if self.teacher_form == "number" and not self.regression:
            raise ValueError("--teacher-form number needs --regression")
        return self


def minutes_of(text: str) -> float:
    """`90s`, `20m`, `1.5h` -> minutes; a bare number is minutes. Raises ValueError."""
    found = re.fullmatch(r"\s*([0-9]+\.?[0-9]*)\s*(s|m|min|h)?\s*", text)
    if found is None or float(found[1]) <= 0:
        raise ValueError(f"{text!r} is not a duration; write 20m or 2h, for example")
    return float(found[1]) * {"s": 1 / 60, "m": 1.0, "min": 1.0, "h": 60.0}[found[2] or "m"]
