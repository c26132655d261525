"""Runs and timings -> the figures of the report, as the JSON file holds them (pure).

Runs of one task that differ only by their seed are one *variant*. A spread is the sample standard deviation over seeds,
and is missing for a single one. Retention is the student's score by its own teacher's on the same rows.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.report.runs import FULL, ModelFolder, Run
from trainer.report.timing import Timing

FORMAT = "distillation-report-1"


def summarise(
    runs: Sequence[Run], timings: Sequence[Timing], facts: Mapping[str, Any], alternations: int
) -> dict[str, Any]:
    """Everything the page shows, JSON-ready. `facts`: title, time, machine."""
    tasks = list(dict.fromkeys(run.task for run in runs if run.task))
    return {
        "format": FORMAT,
        **facts,
        "alternations": alternations if timings else None,
        "runs": [_run_facts(run, timings) for run in runs],
        "tasks": {task: _task_facts([run for run in runs if run.task == task]) for task in tasks},
        "timings": [timing.as_dict() for timing in timings],
    }


def retention(run: Run) -> dict[str, float]:
    """Metric -> student's score by the teacher's; metrics where the teacher has nothing are left out."""
    theirs = (run.result or {}).get("teacher_dev") or {}
    return {
        name: value / theirs[name]
        for name, value in run.last_dev.items()
        if _is_number(value) and _is_number(theirs.get(name)) and theirs[name] > 0
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, sample standard deviation (None for one value), least and greatest."""
    return {
        "mean": statistics.fmean(values),
        "deviation": statistics.stdev(values) if len(values) > 1 else None,
        "least": min(values),
        "greatest": max(values),
    }


def variant_order(name: str) -> tuple[int, str]:
    """`full` comes first, then by name."""
    return (0 if name == FULL else 1, name)


def _run_facts(run: Run, timings: Sequence[Timing]) -> dict[str, Any]:
    result = run.result or {}
    timing = next((number for number, one in enumerate(timings) if str(run.folder) in one.runs), None)
    return {
        "folder": str(run.folder),
        "command": run.command,
        "task": run.task,
        "variant": run.variant,
        "seed": run.seed,
        "finished": run.is_finished,
        "notes": run.notes,
        "metric": run.metric,
        "score": run.last_dev.get(run.metric),
        "dev": dict(run.last_dev),
        "rows": result.get("rows"),
        "retention": retention(run),
        "samples": result.get("samples", _newest(run, "samples")),
        "seconds": result.get("seconds", _newest(run, "seconds")),
        "data_wait_share": result.get("data_wait_share"),
        "mapping": result.get("mapping"),
        "length": run.length if run.task else run.config.get("max_length"),
        "model": _model_facts(run.model) or ({"parameters": result["parameters"]} if "parameters" in result else None),
        "teacher": (_model_facts(run.teacher) or {"folder": result["teacher"]}) | {"dev": result.get("teacher_dev")}
        if result.get("teacher")
        else None,
        "smaller": run.teacher.parameters / run.model.parameters if run.teacher and run.model else None,
        "timing": timing,
        "config": dict(run.config),
    }


def _task_facts(runs: Sequence[Run]) -> dict[str, Any]:
    students = [run for run in runs if run.command == "task"]
    scored = [run for run in students if run.is_finished and _is_number(run.last_dev.get(run.metric))]
    metric = scored[0].metric if scored else (runs[0].metric if runs else "")
    # Students of other sizes are never seeds of one variant, whatever they are called.
    groups: dict[tuple[str, int], list[Run]] = {}
    for run in scored:
        if metric in run.last_dev:
            groups.setdefault((run.variant, run.model.parameters if run.model else 0), []).append(run)
    several_sizes = {name for name, _ in groups if sum(other == name for other, _ in groups) > 1}
    variants = []
    for (name, parameters), members in sorted(groups.items(), key=lambda item: (variant_order(item[0][0]), item[0][1])):
        label = f"{name} ({parameters / 1e6:.1f} M)" if name in several_sizes else name
        variants.append(_variant_facts(label, name, members, metric))
    full = next((one for one in variants if one["variant"] == FULL), None)
    for one in variants:
        is_other = full is not None and one is not full
        one["difference_from_full"] = one["score"]["mean"] - full["score"]["mean"] if full and is_other else None
    teachers = {str((run.result or {}).get("teacher")): (run.result or {}).get("teacher_dev") or {} for run in scored}
    return {
        "metric": metric,
        "variants": variants,
        "teachers": {path: dev.get(metric) for path, dev in teachers.items()},
        "unfinished": [str(run.folder) for run in students if not run.is_finished],
    }


def _variant_facts(label: str, name: str, members: Sequence[Run], metric: str) -> dict[str, Any]:
    scores = [float(run.last_dev[metric]) for run in members]
    kept = [value for run in members if (value := retention(run).get(metric)) is not None]
    return {
        "variant": label,
        "name": name,
        "runs": [str(run.folder) for run in members],
        "seeds": [run.seed for run in members],
        "scores": scores,
        "score": spread(scores),
        "retention": spread(kept) if kept else None,
        "parameters": members[0].model.parameters if members[0].model else None,
        "samples": statistics.fmean(float((run.result or {}).get("samples") or 0) for run in members),
        "seconds": statistics.fmean(float((run.result or {}).get("seconds") or 0) for run in members),
    }


def _model_facts(model: ModelFolder | None) -> dict[str, Any] | None:
    if model is None:
        return None
    return {
        "folder": str(model.folder),
        "parameters": model.parameters,
        "weight_bytes": model.weight_bytes,
        "shape": dict(model.shape),
    }


def _newest(run: Run, name: str) -> Any:
    lines = [*run.losses[-1:], *run.dev[-1:]]
    return max((line[name] for line in lines if name in line), default=None)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
