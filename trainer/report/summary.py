"""Runs and timings -> the figures of the report, as its JSON file holds them (pure).

Runs of one task that differ only by their seed form one *variant*. A spread is the sample standard deviation over
seeds; a single seed has none. Retention is the student's score divided by its own teacher's score on the same rows: the
test rows if there are any, since the dev rows chose the student's best checkpoint.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from trainer.report.figures import (
    ModelSummary,
    PageFacts,
    RunSummary,
    Spread,
    Summary,
    TaskSummary,
    TeacherSummary,
    VariantSummary,
)
from trainer.report.measurements import Timing
from trainer.report.model_folder import ModelFolder
from trainer.report.runs import FULL, Run, ScoredOn


def summarise(runs: Sequence[Run], timings: Sequence[Timing], facts: PageFacts, alternations: int) -> Summary:
    """Compute every figure of the report. `alternations`: how often teacher and student took turns in a timing."""
    tasks = list(dict.fromkeys(run.task for run in runs if run.task))
    return Summary(
        title=facts.title,
        created=facts.created,
        machine=facts.machine,
        alternations=alternations if timings else None,
        runs=[_summarise_run(run, timings) for run in runs],
        tasks={task: _summarise_task([run for run in runs if run.task == task]) for task in tasks},
        timings=timings,
    )


def retention(run: Run, rows: ScoredOn) -> dict[str, float]:
    """Metric -> student's score / teacher's score, for metrics where the teacher's score is positive."""
    theirs = run.teacher_scores(rows)
    return {
        name: value / theirs[name]
        for name, value in run.scores(rows).items()
        if _is_number(value) and _is_number(theirs.get(name)) and theirs[name] > 0
    }


def spread(values: Sequence[float]) -> Spread:
    """Mean and spread of at least one value."""
    return Spread(
        mean=statistics.fmean(values),
        deviation=statistics.stdev(values) if len(values) > 1 else None,
        least=min(values),
        greatest=max(values),
    )


def variant_order(name: str) -> tuple[int, str]:
    """Sort key: `full` first, then by name."""
    return (0 if name == FULL else 1, name)


def _summarise_run(run: Run, timings: Sequence[Timing]) -> RunSummary:
    result = run.result
    return RunSummary(
        folder=run.folder,
        command=run.command,
        task=run.task,
        variant=run.variant,
        seed=run.seed,
        finished=run.is_finished,
        notes=run.notes,
        metric=run.metric,
        score=run.last_dev.get(run.metric),
        dev=dict(run.last_dev),
        rows=result.rows if result else None,
        baselines=dict((result.baselines if result else None) or {}),
        test=dict(result.test.scores) if result and result.test else {},
        agreement=result.test.agreement if result and result.test else None,
        retention=retention(run, run.scored_on),
        retention_on=run.scored_on,
        samples=result.samples if result else run.history.samples,
        seconds=result.seconds if result else run.history.seconds,
        data_wait_share=result.data_wait_share if result else None,
        mapping=result.mapping if result else None,
        length=run.length,
        model=_summarise_model(run),
        teacher=_summarise_teacher(run),
        smaller=run.teacher.parameters / run.model.parameters if run.teacher and run.model else None,
        timing=next((number for number, one in enumerate(timings) if run.folder in one.runs), None),
        config=dict(run.options),
    )


def _summarise_model(run: Run) -> ModelSummary | None:
    if run.model is not None:
        return ModelSummary(**_sizes(run.model))
    if run.result is not None and run.result.parameters is not None:
        return ModelSummary(parameters=run.result.parameters)
    return None


def _summarise_teacher(run: Run) -> TeacherSummary | None:
    if run.result is None or not run.result.teacher:
        return None
    sizes = _sizes(run.teacher) if run.teacher else {"folder": run.result.teacher}
    return TeacherSummary(**sizes, dev=run.result.teacher_dev)


def _sizes(model: ModelFolder) -> dict[str, Any]:
    return {
        "folder": str(model.folder),
        "parameters": model.parameters,
        "weight_bytes": model.weight_bytes,
        "shape": model.shape,
    }


def _summarise_task(runs: Sequence[Run]) -> TaskSummary:
    students = [run for run in runs if run.command == "task"]
    scored = [run for run in students if run.is_finished and _is_number(run.last_dev.get(run.metric))]
    metric = scored[0].metric if scored else (runs[0].metric if runs else "")
    rows: ScoredOn = "test" if scored and all(run.scored_on == "test" for run in scored) else "dev"
    return TaskSummary(
        metric=metric,
        scored_on=rows,
        variants=_variants([run for run in scored if _is_number(run.scores(rows).get(metric))], metric, rows),
        teachers={str(run.result.teacher): run.teacher_scores(rows).get(metric) for run in scored if run.result},
        unfinished=[run.folder for run in students if not run.is_finished],
    )


def _variants(runs: Sequence[Run], metric: str, rows: ScoredOn) -> list[VariantSummary]:
    # Students of different sizes are never seeds of one variant, whatever they are called.
    groups: dict[tuple[str, int], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.variant, run.model.parameters if run.model else 0), []).append(run)
    names = [name for name, _ in groups]
    variants = []
    for (name, parameters), members in sorted(groups.items(), key=lambda item: (variant_order(item[0][0]), item[0][1])):
        label = f"{name} ({parameters / 1e6:.1f} M)" if names.count(name) > 1 else name
        variants.append(_variant(label, name, members, metric, rows))
    full = next((one for one in variants if one.variant == FULL), None)
    if full is None:
        return variants
    return [
        one if one is full else replace(one, difference_from_full=one.score.mean - full.score.mean) for one in variants
    ]


def _variant(label: str, name: str, members: Sequence[Run], metric: str, rows: ScoredOn) -> VariantSummary:
    scores = [float(run.scores(rows)[metric]) for run in members]
    kept = [value for run in members if (value := retention(run, rows).get(metric)) is not None]
    results = [run.result for run in members if run.result]
    return VariantSummary(
        variant=label,
        name=name,
        runs=[run.folder for run in members],
        seeds=[run.seed for run in members],
        scores=scores,
        score=spread(scores),
        retention=spread(kept) if kept else None,
        parameters=members[0].model.parameters if members[0].model else None,
        samples=statistics.fmean(one.samples or 0 for one in results),
        seconds=statistics.fmean(one.seconds or 0 for one in results),
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
