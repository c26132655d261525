"""Learning curves of runs as figures (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainer.report.blocks import Figure, LegendEntry
from trainer.report.history import TOTAL
from trainer.report.plots import Series, line_chart
from trainer.report.runs import Run

TERMS = ("attention", "hidden", "embedding", "prediction", "label")
LABELLED_RUNS = 8


def dev_curves(
    runs: Sequence[Run], metric: str, colours: Mapping[str, int], teacher_score: float | None
) -> list[Figure]:
    """Dev score over samples seen, one line per run, coloured by variant. Empty when nothing was scored."""
    lines = []
    for run in runs:
        points = [
            (float(one.samples), 100 * float(one.values[metric])) for one in run.history.dev if metric in one.values
        ]
        if points:
            lines.append(Series(f"{run.variant}, seed {run.seed}", points, colours[run.variant], True))
    if not lines:
        return []
    ends = ", ".join(f"{one.label} {one.points[-1][1]:.1f}" for one in lines[:LABELLED_RUNS])
    chart = line_chart(
        lines,
        x_label="samples",
        y_label=f"{metric} × 100",
        description=f"{metric} on dev over samples; last values: {ends}",
        reference=("teacher", 100 * teacher_score) if teacher_score is not None else None,
    )
    shown = dict.fromkeys(run.variant for run in runs if run.history.dev)
    legend = [LegendEntry(name, colours[name]) for name in shown]
    figure = Figure(caption="Dev score", remark="one line per seed", chart=chart, legend=legend)
    return [figure] if chart else []


def loss_curves(run: Run) -> list[Figure]:
    """One chart per stage with the terms of its loss."""
    stages = dict.fromkeys(one.stage for one in run.history.losses)
    return [figure for stage in stages for figure in _stage_curves(run, stage)]


def _stage_curves(run: Run, stage: str) -> list[Figure]:
    records = [one for one in run.history.losses if one.stage == stage]
    names = [name for name in TERMS if any(name in one.values for one in records)]
    shown = [(name, name, number) for number, name in enumerate(TERMS) if name in names]
    # A single term is the whole loss, so its sum would be the same line again.
    if len(names) != 1:
        shown.append((TOTAL, "sum" if names else TOTAL, len(TERMS)))
    series = [
        Series(label, [(float(one.samples), float(one.values[key])) for one in records if key in one.values], colour)
        for key, label, colour in shown
    ]
    series = [one for one in series if one.points]
    ends = ", ".join(f"{one.label} {one.points[0][1]:.3g} to {one.points[-1][1]:.3g}" for one in series)
    description = f"Losses of stage {stage} over samples: {ends}"
    chart = line_chart(series, x_label="samples", y_label="loss", description=description)
    legend = [LegendEntry(one.label, one.colour) for one in series]
    figure = Figure(caption=f"Stage {stage}", remark=f"first to last: {ends}", chart=chart, legend=legend)
    return [figure] if chart else []
