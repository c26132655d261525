"""The sections of the page: one per task, speed, and the runs before task distillation (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from shared.cli.progress import counted
from trainer.report.blocks import Figure, Note, RunCurves, Section, Table, Tile
from trainer.report.curves import dev_curves, loss_curves
from trainer.report.figures import Summary, TaskSummary
from trainer.report.measurements import Timing
from trainer.report.numbers import MISSING, millions, percent, points, times
from trainer.report.plots import DotRow, dot_chart
from trainer.report.runs import Run
from trainer.report.summary import variant_order
from trainer.report.tables import ablation_table, labels_table, runs_table, timing_table


def task_section(task: str, runs: Sequence[Run], summary: Summary) -> Section | None:
    """Headline, curves, ablation and runs of one task; None if it has no student."""
    facts = summary.tasks[task]
    students = [run for run in runs if run.task == task and run.command == "task"]
    if not students:
        return None
    names = sorted({run.variant for run in students}, key=variant_order)
    colours = {name: number for number, name in enumerate(names)}
    teacher_score = _only(facts.teachers.values())
    teacher_on_dev = _only([run.teacher_dev.get(facts.metric) for run in students])
    has_ablation = len(facts.variants) > 1
    return Section(
        anchor=_anchor_of(task),
        link=task,
        heading=task,
        message="" if facts.variants else "No student of this task has finished yet.",
        tiles=_headline(facts, summary) if facts.variants else (),
        notes=_notes(students),
        figures=[
            *dev_curves(students, facts.metric, colours, teacher_on_dev),
            *(_ablation_figure(facts, colours, teacher_score) if has_ablation else ()),
        ],
        tables=[
            *([ablation_table(facts)] if has_ablation else ()),
            runs_table(f"{task}: students and their teacher", students, summary),
            *_labels_tables(students),
        ],
        curves_title="Loss curves",
        curves=[RunCurves(run.label, loss_curves(run)) for run in students],
    )


def speed_section(timings: Sequence[Timing]) -> Section | None:
    """Timing setup and results; None if nothing was timed."""
    if not timings:
        return None
    first = timings[0]
    where = "the CPU" if first.device == "cpu" else first.device
    return Section(
        anchor="speed",
        link="Speed",
        heading="Speed compared with the teacher",
        paragraph=f"Measured in one process, with {counted(first.threads, 'thread')} on {where}. Teacher and student "
        "take turns running the same inputs through plain transformers. The ratio is the median over neighbouring "
        "turns, with its quartiles, so other work on the machine slows both models equally.",
        tables=[timing_table(one) for one in timings],
    )


def other_section(runs: Sequence[Run], summary: Summary) -> Section | None:
    """Teachers and general distillation; None if there are neither."""
    others = [run for run in runs if run.command != "task"]
    if not others:
        return None
    return Section(
        anchor="before",
        link="Teachers and general distillation",
        heading="Teachers and general distillation",
        notes=_notes(others),
        tables=[runs_table("Runs before task distillation", others, summary), *_labels_tables(others)],
        curves_title="Curves",
        curves=[
            RunCurves(run.label, [*dev_curves([run], run.metric, {run.variant: 0}, None), *loss_curves(run)])
            for run in others
        ],
    )


def _headline(facts: TaskSummary, summary: Summary) -> list[Tile]:
    """Score, retention, size and speed of the first variant (`full` where there is one)."""
    best = facts.variants[0]
    run = summary.of(best.runs[0])
    speed = summary.timings[run.timing].speed_up() if run.timing is not None else None
    theirs = [value for value in facts.teachers.values() if value is not None]
    deviation = "" if best.score.deviation is None else f" ± {points(best.score.deviation)}"
    return [
        Tile(
            name=f"{facts.metric} × 100",
            value=points(best.score.mean),
            note=f"{facts.scored_on} rows, {best.variant}, {counted(len(best.seeds), 'seed')}{deviation}",
        ),
        Tile(
            name="of the teacher's score",
            value=percent(best.retention.mean) if best.retention else MISSING,
            note=f"teacher: {points(sum(theirs) / len(theirs))}" if theirs else "the teacher was not scored",
        ),
        Tile(
            name="smaller",
            value=times(run.smaller),
            note=f"{millions(run.model.parameters if run.model else None)} parameters",
        ),
        Tile(
            name="faster",
            value=times(speed.ratio) if speed else MISSING,
            note=f"{speed.dtype}, batch size {speed.batch_size}, {speed.width:.0f} tokens" if speed else "not timed",
        ),
    ]


def _only(scores: Iterable[float | None]) -> float | None:
    """The score of the teacher; None if there are several, or none."""
    found = {one for one in scores if one is not None}
    return found.pop() if len(found) == 1 else None


def _ablation_figure(facts: TaskSummary, colours: Mapping[str, int], teacher_score: float | None) -> list[Figure]:
    rows = [
        DotRow(
            label=one.variant,
            values=[100 * value for value in one.scores],
            mean=100 * one.score.mean,
            deviation=None if one.score.deviation is None else 100 * one.score.deviation,
            colour=colours[one.name],
        )
        for one in facts.variants
    ]
    chart = dot_chart(
        rows,
        x_label=f"{facts.metric} × 100",
        description=f"Scores by variant: {'; '.join(f'{row.label} {row.mean:.1f}' for row in rows)}",
        reference=("teacher", 100 * teacher_score) if teacher_score is not None else None,
    )
    caption, remark = "Contribution of each component", "dots: seeds; bar: mean; line: one standard deviation"
    return [Figure(caption=caption, remark=remark, chart=chart)]


def _labels_tables(runs: Sequence[Run]) -> list[Table]:
    return [table for run in runs if (table := labels_table(run)) is not None]


def _notes(runs: Sequence[Run]) -> list[Note]:
    return [Note(run.folder, text) for run in runs for text in run.notes]


def _anchor_of(task: str) -> str:
    return "task-" + "".join(letter if letter.isalnum() else "-" for letter in task.lower())
