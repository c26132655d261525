"""The page's tables: runs, ablation, timing (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shared.cli.progress import counted
from trainer.report.blocks import Cell, Table, cells
from trainer.report.figures import RunSummary, Spread, Summary, TaskSummary, TeacherSummary
from trainer.report.measurements import Measurement, Timing
from trainer.report.numbers import (
    MISSING,
    count,
    duration,
    megabytes,
    millions,
    milliseconds,
    percent,
    points,
    rate,
    times,
)
from trainer.report.runs import Run


def runs_table(caption: str, runs: Sequence[Run], summary: Summary) -> Table:
    """Score, size and cost of each run, below the teachers that the runs learned from."""
    summaries = [summary.of(run.folder) for run in runs]
    rows = _baseline_rows(summaries) + _teacher_rows(summaries)
    rows += [_run_row(run, one) for run, one in zip(runs, summaries, strict=True)]
    header = ["run", "dev × 100", "kept", "parameters", "weights", "samples", "time", "waited for data"]
    if all(run.command != "task" for run in runs):
        # Without a student, no score is compared with a teacher's.
        header, rows = header[:2] + header[3:], [[*row[:2], *row[3:]] for row in rows]
    return Table(caption=caption, header=header, rows=rows)


def _run_row(run: Run, one: RunSummary) -> list[Cell]:
    kept = one.retention.get(one.metric)
    return cells(
        Cell(run.label, "" if run.is_finished else "unfinished"),
        Cell(_scores(one.dev), _test_text(one)),
        Cell(percent(kept), f"{one.retention_on} rows" if kept is not None else ""),
        millions(one.model.parameters if one.model else None),
        megabytes(one.model.weight_bytes if one.model else None),
        count(one.samples),
        duration(one.seconds),
        percent(one.data_wait_share),
    )


def _test_text(one: RunSummary) -> str:
    agreement = "" if one.agreement is None else f", agreement with the given answers {100 * one.agreement:.1f}"
    return f"test: {_scores(one.test)}{agreement}" if one.test else ""


def _baseline_rows(runs: Sequence[RunSummary]) -> list[list[Cell]]:
    """Scores of models that read no text, once for all runs scored on the same rows."""
    found = {(name, _scores(scores)) for one in runs for name, scores in one.baselines.items()}
    return [
        cells(Cell(name, "does not read the text"), scores, *[MISSING] * 6)
        for name, scores in sorted(found, key=lambda one: (one[0] != "majority", one))
    ]


def _teacher_rows(runs: Sequence[RunSummary]) -> list[list[Cell]]:
    teachers: dict[str | None, TeacherSummary] = {one.teacher.folder: one.teacher for one in runs if one.teacher}
    return [
        cells(
            Cell("teacher", str(folder) if len(teachers) > 1 else ""),
            _scores(one.dev or {}),
            MISSING,
            millions(one.parameters),
            megabytes(one.weight_bytes),
            MISSING,
            MISSING,
            MISSING,
        )
        for folder, one in teachers.items()
    ]


def ablation_table(task: TaskSummary) -> Table:
    """One row per variant; the one with the best mean is marked."""
    rows = []
    for one in task.variants:
        seeds = ", ".join(str(seed) for seed in one.seeds)
        rows.append(
            cells(
                one.variant,
                _with_deviation(points(one.score.mean), one.score),
                MISSING if one.difference_from_full is None else f"{100 * one.difference_from_full:+.1f}",
                _with_deviation(percent(one.retention.mean), one.retention) if one.retention else MISSING,
                Cell(str(len(one.seeds)), f"({seeds})"),
                count(one.samples),
                duration(one.seconds),
            )
        )
    means = [one.score.mean for one in task.variants]
    return Table(
        caption="Ablation",
        header=["variant", f"{task.metric} × 100", "vs. full", "kept", "seeds", "samples", "time"],
        rows=rows,
        remark=f"on the {task.scored_on} rows; mean ± standard deviation over seeds (none for a single seed)",
        best_row=means.index(max(means)),
    )


def labels_table(run: Run) -> Table | None:
    """A run's scores for each label of a multi-label task; None for other tasks."""
    labels = run.result.labels if run.result else None
    if not labels:
        return None
    assert run.result is not None
    rows = [
        cells(name, *(points(one[score]) for score in ("precision", "recall", "f1")), count(int(one["support"])))
        for name, one in labels.items()
    ]
    return Table(
        caption=f"{run.label}: scores per label",
        header=["label", "precision × 100", "recall × 100", "F1 × 100", "rows with the label"],
        rows=rows,
        remark=f"on the {'test' if run.result.test else 'dev'} rows",
    )


def timing_table(timing: Timing) -> Table:
    """One row per precision and batch size."""
    rows = [
        cells(
            f"{row.dtype}, batch {row.batch_size}",
            _width(row),
            milliseconds(row.teacher_milliseconds),
            milliseconds(row.student_milliseconds),
            rate(row.teacher_texts_per_second),
            rate(row.student_texts_per_second),
            Cell(times(row.ratio), f"{row.ratio_low:.1f} to {row.ratio_high:.1f}"),
        )
        for row in timing.measurements
    ]
    return Table(
        caption=f"{timing.student}, compared with {timing.teacher}",
        header=[
            "",
            "tokens",
            "teacher, per batch",
            "student, per batch",
            "teacher, texts/s",
            "student, texts/s",
            "faster",
        ],
        rows=rows,
        remark=f"Inputs of at most {timing.length} tokens ({timing.inputs}). "
        f"Applies to {counted(len(timing.runs), 'run')}.",
    )


def _scores(dev: Mapping[str, float]) -> str:
    return " · ".join(f"{name} {points(value)}" for name, value in dev.items()) or MISSING


def _with_deviation(text: str, spread: Spread) -> Cell:
    return Cell(text, "" if spread.deviation is None else f"± {points(spread.deviation)}")


def _width(row: Measurement) -> Cell:
    padded = row.width - row.real_pieces
    return Cell(f"{row.width:.0f}", f"{row.real_pieces:.0f} real" if padded >= 1 else "")
