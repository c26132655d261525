"""The plan of a distillation as data: one command per step, each with its own folder and completion marker."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.pipeline.choices import EVALUATIONS, Choices
from trainer.pipeline.config import DistillConfig
from trainer.pipeline.place import Place
from trainer.pipeline.preparation import Prepared
from trainer.pipeline.students import FIRST, student_seeds

STUDENT_RECIPE = ("--dropout", "0", "--window-shards", "4", "--select-by", "late")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A command. done: the output file that marks the step as finished; it is written last, atomically.

    group: steps of one group run at the same time. marked: `done` is written here once the command has succeeded,
    because it has no last file of its own.
    """

    name: str
    group: int
    program: str
    arguments: tuple[str, ...]
    done: str
    marked: bool = False

    def command(self) -> list[str]:
        """The argument list to execute."""
        return [sys.executable, "-m", self.program, *self.arguments]

    def line(self) -> str:
        """The command as a user would type it."""
        return f"python -m {self.program} {shlex.join(self.arguments)}"


def plan_steps(config: DistillConfig, place: Place, prepared: Prepared, choices: Choices) -> list[Step]:
    """All steps, in order. Of several students the first is shown as the one that is exported and reported."""
    return [
        *training_steps(config, place, prepared, choices),
        *closing_steps(config, place, prepared, choices, FIRST),
    ]


def training_steps(config: DistillConfig, place: Place, prepared: Prepared, choices: Choices) -> list[Step]:
    """The steps up to the students."""
    columns = prepared.column_options()
    seed = ["--seed", str(config.seed)]
    compute = ["--device", config.device, "--dtype", config.dtype]
    compute += ["--threads", str(config.threads)] if config.threads else []
    scored = ["--dev", prepared.dev, "--test", prepared.test, "--max-length", str(choices.max_length)]
    scored += ["--batch-size", str(config.batch_size), "--evaluations", str(EVALUATIONS)]
    teacher = config.teacher or place.path("teacher")
    learned = prepared.answer_options() or ["--teacher", teacher]
    steps = []
    if not (config.teacher or config.teacher_column):
        tuning = ["--epochs", f"{choices.teacher_epochs:g}", "--lr", f"{config.teacher_lr:g}", "--name", "teacher"]
        tuning += ["--regression"] if config.regression else []
        steps.append(
            Step(
                name="teacher",
                group=0,
                program="trainer",
                arguments=(
                    *("teacher", "--train", prepared.train, *scored, *columns, "--encoder", config.encoder),
                    *(*tuning, *seed, *compute, "--output", place.path("teacher")),
                ),
                done="teacher/result.json",
            )
        )
    unlabelled = [path for path in (prepared.unlabelled, prepared.mined) if path]
    unlabelled += ["--missing-labels", "keep"] if unlabelled else []
    # There are many mined pairs already, so they are not augmented.
    unlabelled += ["--n-a-unlabelled", "0"] if prepared.mined and not prepared.unlabelled else []
    quotas = ["--n-a-per-label", *choices.n_a_per_label] if choices.n_a_per_label else []
    pairs = ["--pairs", config.pairs] if prepared.has_pairs else []
    limit = ["--limit", str(choices.augment_rows)] if choices.augment_rows else []
    steps.append(
        Step(
            name="augment",
            group=1,
            program="augment_service",
            arguments=(
                *(
                    "run",
                    "--input",
                    prepared.train,
                    *unlabelled,
                    *columns,
                    "--mlm",
                    config.mlm,
                    "--glove",
                    config.glove,
                ),
                *("--n-a", str(choices.n_a), *quotas, *pairs, *limit, "--shard-rows", str(choices.shard_rows), *seed),
                *("--address", config.address, "--output", place.path("augmented")),
            ),
            done="augmented/_SUCCESS",
        )
    )
    if choices.annotates:
        steps.append(
            Step(
                name="annotate",
                group=2,
                program="trainer",
                arguments=(
                    *("annotate", "--augmented", place.path("augmented"), "--teacher", teacher),
                    *("--max-length", str(choices.max_length), *compute),
                ),
                done="annotated.done",
                marked=True,
            )
        )
    distilling = ["--epochs", f"{choices.epochs:g}", "--lr", f"{config.lr:g}", "--name", "student"]
    distilling += [
        "--prediction-epochs",
        f"{choices.prediction_epochs:g}",
        "--prediction-lr",
        f"{config.prediction_lr:g}",
    ]
    if config.hard_label_weight:
        distilling += ["--hard-label-weight", f"{config.hard_label_weight:g}"]
    if choices.student == "embedded":
        # Most of its weights are the embeddings of tokens that a task never uses.
        distilling += ["--prune-vocabulary", "auto"]
    distilling += ["--annotated"] if choices.annotates else []
    distilling += ["--balance"] if config.balance else []
    for number, (name, own_seed) in enumerate(student_seeds(config).items()):
        # Only the first may be trained while the job runs; the others follow, one after another.
        group = 3 + number if choices.annotates or number else 1
        steps.append(
            Step(
                name=name,
                group=group,
                program="trainer",
                arguments=(
                    *("task", "--augmented", place.path("augmented"), *learned, "--student", choices.student),
                    *(*scored, *columns, *distilling, *STUDENT_RECIPE, "--seed", str(own_seed), *compute),
                    *("--output", place.path(name)),
                ),
                done=f"{name}/result.json",
            )
        )
    return steps


def closing_steps(config: DistillConfig, place: Place, prepared: Prepared, choices: Choices, chosen: str) -> list[Step]:
    """The steps after the students, with groups of their own. chosen: the student that is exported and reported."""
    student, steps = place.path(chosen), list[Step]()
    for kind, name in (("onnx", "model"), ("int8", "model-int8")) if config.onnx else ():
        steps.append(
            Step(
                name=f"export {kind}",
                group=0 if kind == "onnx" else 1,
                program="trainer",
                arguments=(
                    *("export", "--model", student, "--format", kind, "--data", prepared.dev),
                    *("--text-column", *prepared.text_columns, "--max-length", str(choices.max_length)),
                    *("--output", place.path(f"onnx/{name}.onnx")),
                ),
                done=f"onnx/{name}.onnx",
            )
        )
    if not config.report:
        return steps
    runs = [] if config.teacher or config.teacher_column else [place.path("teacher")]
    steps.append(
        Step(
            name="report",
            group=2,
            program="trainer",
            arguments=(
                *("report", "--runs", *runs, student, "--data", prepared.test),
                *("--text-column", *prepared.text_columns, "--dtypes", "fp32", "--device", config.device),
                *(("--threads", str(config.threads)) if config.threads else ()),
                *(("--no-timing",) if config.teacher_column else ()),
                *("--output", place.path("report.html")),
            ),
            done="report.html",
        )
    )
    return steps


def groups_of(steps: Sequence[Step]) -> list[list[Step]]:
    """Steps that run at the same time, in order."""
    return [[step for step in steps if step.group == group] for group in sorted({step.group for step in steps})]
