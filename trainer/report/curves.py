"""Learning curves of runs as figures (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainer.report.html import figure
from trainer.report.plots import Series, line_chart
from trainer.report.runs import Run

TERMS = ("attention", "hidden", "embedding", "prediction", "label")
TOTAL = "loss"


def dev_curves(runs: Sequence[Run], metric: str, colours: Mapping[str, int], teacher_score: float | None) -> str:
    """The score on dev over the samples seen, a line per run, coloured by variant."""
    lines = []
    for run in runs:
        places = [
            (float(line["samples"]), 100 * float(line["dev"][metric])) for line in run.dev if metric in line["dev"]
        ]
        if places:
            lines.append(Series(f"{run.variant}, seed {run.seed}", places, colours[run.variant], True))
    if not lines:
        return ""
    ends = ", ".join(f"{one.label} {one.points[-1][1]:.1f}" for one in lines[:8])
    chart = line_chart(
        lines,
        "samples",
        f"{metric} × 100",
        f"{metric} on dev over samples; last values: {ends}",
        ("teacher", 100 * teacher_score) if teacher_score is not None else None,
    )
    shown = list(dict.fromkeys(run.variant for run in runs if run.dev))
    return figure("Score on dev", "one line per seed", chart, [(name, colours[name]) for name in shown])


def loss_curves(run: Run) -> list[str]:
    """One chart per stage with the terms of its loss."""
    figures = []
    for stage in dict.fromkeys(str(line["stage"]) for line in run.losses):
        lines = [line for line in run.losses if line["stage"] == stage]
        names = [name for name in TERMS if any(f"loss_{name}" in line for line in lines)]
        # A single term is the whole loss.
        wanted = [(f"loss_{name}", name, number) for number, name in enumerate(TERMS) if name in names]
        if len(names) != 1:
            wanted.append((TOTAL, "sum" if names else TOTAL, len(TERMS)))
        series = [
            Series(label, [(float(line["samples"]), float(line[key])) for line in lines if key in line], colour)
            for key, label, colour in wanted
        ]
        series = [one for one in series if one.points]
        ends = ", ".join(f"{one.label} {one.points[0][1]:.3g} to {one.points[-1][1]:.3g}" for one in series)
        chart = line_chart(series, "samples", "loss", f"Losses of the stage {stage} over samples: {ends}")
        figures.append(
            figure(f"Stage {stage}", f"first to last: {ends}", chart, [(one.label, one.colour) for one in series])
        )
    return figures
