"""The sections of the page: one per task, speed, the other runs (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from trainer.report.curves import dev_curves, loss_curves
from trainer.report.html import (
    MISSING,
    Cell,
    Row,
    charts,
    count,
    details,
    duration,
    figure,
    megabytes,
    millions,
    milliseconds,
    percent,
    points,
    rate,
    table,
    tiles,
    times,
)
from trainer.report.plots import DotRow, dot_chart
from trainer.report.runs import Run
from trainer.report.summary import variant_order
from trainer.report.timing import Measurement, Timing


def task_section(task: str, runs: Sequence[Run], summary: Mapping[str, Any], timings: Sequence[Timing]) -> str:
    """Headline, curves, ablation and runs of one task."""
    facts = summary["tasks"][task]
    students = [run for run in runs if run.task == task and run.command == "task"]
    rows = {one["folder"]: one for one in summary["runs"]}
    if not students:
        return ""
    names = sorted({run.variant for run in students}, key=variant_order)
    colours = {name: number for number, name in enumerate(names)}
    teachers = {value for value in facts["teachers"].values() if value is not None}
    teacher_score = teachers.pop() if len(teachers) == 1 else None
    figures = [
        dev_curves(students, facts["metric"], colours, teacher_score),
        _ablation_figure(facts, colours, teacher_score),
    ]
    return (
        f'<section id="{anchor_of(task)}"><h2>{escape(task)}</h2>'
        + _headline(facts, rows, timings)
        + _notes(students)
        + charts(figures)
        + _ablation_table(facts)
        + _runs_table(f"{task}: students and their teacher", students, rows)
        + details(
            "Loss curves", "".join(f"<h3>{escape(_label(run))}</h3>{charts(loss_curves(run))}" for run in students)
        )
        + "</section>"
    )


def speed_section(timings: Sequence[Timing]) -> str:
    """What was timed, and how it came out."""
    if not timings:
        return ""
    parts = ['<section id="speed"><h2>Speed, side by side</h2>']
    first = timings[0]
    where = "the CPU" if first.device == "cpu" else escape(first.device)
    parts.append(
        f"<p>One process, {_number(first.threads, 'thread')} on {where}; teacher and student run "
        "the same tensors by plain transformers, taking turns. The ratio is the median of neighbouring "
        "turns, with its quartiles: other work on the machine slows both.</p>"
    )
    for one in timings:
        rows: list[Row] = [
            [
                Cell(f"{row.dtype}, batch {row.batch_size}"),
                _width(row),
                milliseconds(row.teacher_milliseconds),
                milliseconds(row.student_milliseconds),
                rate(row.teacher_texts_per_second),
                rate(row.student_texts_per_second),
                Cell(times(row.ratio), f"{row.ratio_low:.1f} to {row.ratio_high:.1f}"),
            ]
            for row in one.measurements
        ]
        header = [
            "", "pieces", "teacher, a batch", "student, a batch", "teacher, texts/s", "student, texts/s", "faster"
        ]  # fmt: skip
        used = f"Inputs of at most {one.length} pieces ({one.inputs}). Holds for {_number(len(one.runs), 'run')}."
        parts.append(table(f"{one.student}, beside {one.teacher}", header, rows, used))
    return "".join(parts) + "</section>"


def other_section(runs: Sequence[Run], summary: Mapping[str, Any]) -> str:
    """Teachers and general distillation."""
    others = [run for run in runs if run.command != "task"]
    if not others:
        return ""
    facts = {one["folder"]: one for one in summary["runs"]}
    curves = []
    for run in others:
        dev = dev_curves([run], run.metric, {run.variant: 0}, None)
        curves.append(f"<h3>{escape(_label(run))}</h3>" + charts([dev, *loss_curves(run)]))
    return (
        '<section id="before"><h2>Teachers and general distillation</h2>'
        + _notes(others)
        + _runs_table("Runs before the task distillation", others, facts)
        + details("Curves", "".join(curves))
        + "</section>"
    )


def _headline(facts: Mapping[str, Any], rows: Mapping[str, Any], timings: Sequence[Timing]) -> str:
    if not facts["variants"]:
        return '<p class="soft">No student of this task is finished yet.</p>'
    best = facts["variants"][0]
    run = rows[best["runs"][0]]
    timing = timings[run["timing"]] if run["timing"] is not None else None
    speed = timing.speed_up() if timing else None
    seeds = _number(len(best["seeds"]), "seed")
    kept, score, metric = best["retention"], best["score"], facts["metric"]
    theirs = [value for value in facts["teachers"].values() if value is not None]
    deviation = "" if score["deviation"] is None else f" ± {points(score['deviation'])}"
    entries = [
        (f"{metric} × 100", points(score["mean"]), f"{best['variant']}, {seeds}{deviation}"),
        (
            "kept of the teacher",
            percent(kept["mean"]) if kept else MISSING,
            f"teacher: {points(sum(theirs) / len(theirs))}" if theirs else "the teacher was not scored",
        ),
        ("smaller", times(run["smaller"]), f"{millions((run['model'] or {}).get('parameters'))} parameters"),
        (
            "faster",
            times(speed.ratio) if speed else MISSING,
            f"{speed.dtype}, batches of {speed.batch_size}, {speed.width:.0f} pieces" if speed else "not timed",
        ),
    ]
    return tiles(entries)


def _ablation_figure(facts: Mapping[str, Any], colours: Mapping[str, int], teacher_score: float | None) -> str:
    variants = facts["variants"]
    if len(variants) < 2:
        return ""
    rows = [
        DotRow(
            one["variant"],
            [100 * value for value in one["scores"]],
            100 * one["score"]["mean"],
            None if one["score"]["deviation"] is None else 100 * one["score"]["deviation"],
            colours[one["name"]],
        )
        for one in variants
    ]
    told = "; ".join(f"{row.label} {row.mean:.1f}" for row in rows)
    chart = dot_chart(
        rows,
        f"{facts['metric']} × 100",
        f"Scores by variant: {told}",
        ("teacher", 100 * teacher_score) if teacher_score is not None else None,
    )
    return figure("What each part brings", "dots: seeds; bar: mean; line: one standard deviation", chart)


def _ablation_table(facts: Mapping[str, Any]) -> str:
    variants = facts["variants"]
    if len(variants) < 2:
        return ""
    rows: list[Row] = []
    for one in variants:
        score, difference = one["score"], one["difference_from_full"]
        seeds = ", ".join(str(seed) for seed in one["seeds"])
        rows.append(
            [
                one["variant"],
                _with_deviation(points(score["mean"]), score["deviation"]),
                MISSING if difference is None else f"{100 * difference:+.1f}",
                _with_deviation(percent(one["retention"]["mean"]), one["retention"]["deviation"])
                if one["retention"]
                else MISSING,
                Cell(str(len(one["seeds"])), f"({seeds})"),
                count(one["samples"]),
                duration(one["seconds"]),
            ]
        )
    means = [one["score"]["mean"] for one in variants]
    header = ["variant", f"{facts['metric']} × 100", "from full", "kept", "seeds", "samples", "time"]
    remark = "mean ± standard deviation over seeds; one seed has none"
    return table("Ablation", header, rows, remark, [means.index(max(means))])


def _runs_table(caption: str, runs: Sequence[Run], facts: Mapping[str, Any]) -> str:
    rows: list[Row] = _teacher_rows([facts[str(run.folder)] for run in runs])
    for run in runs:
        one = facts[str(run.folder)]
        model = one["model"] or {}
        wait = one["data_wait_share"]
        rows.append(
            [
                Cell(_label(run), "" if run.is_finished else "unfinished"),
                _scores(one["dev"]),
                percent(one["retention"].get(one["metric"])),
                millions(model.get("parameters")),
                megabytes(model.get("weight_bytes")),
                count(one["samples"]),
                duration(one["seconds"]),
                percent(wait),
            ]
        )
    header = ["run", "dev × 100", "kept", "parameters", "weights", "samples", "time", "waited for data"]
    if all(run.command != "task" for run in runs):
        # Nothing is kept of a teacher where there is none.
        header, rows = header[:2] + header[3:], [[*row[:2], *row[3:]] for row in rows]
    return table(caption, header, rows)


def _teacher_rows(facts: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A row for each teacher that the runs learned from."""
    teachers = {one["teacher"]["folder"]: one["teacher"] for one in facts if one["teacher"]}
    return [
        [
            Cell("teacher", folder if len(teachers) > 1 else ""), _scores(one["dev"] or {}), MISSING,
            millions(one.get("parameters")), megabytes(one.get("weight_bytes")), MISSING, MISSING, MISSING,
        ]
        for folder, one in teachers.items()
    ]  # fmt: skip


def _scores(dev: Mapping[str, Any]) -> str:
    return " · ".join(f"{name} {points(value)}" for name, value in dev.items()) or MISSING


def _notes(runs: Sequence[Run]) -> str:
    lines = [f"<li><code>{escape(str(run.folder))}</code>: {escape(note)}</li>" for run in runs for note in run.notes]
    return f'<ul class="notes">{"".join(lines)}</ul>' if lines else ""


def _label(run: Run) -> str:
    parts = [run.variant] if run.command == "task" else [run.command, run.task, str(run.config.get("name") or "")]
    return f"{' · '.join(dict.fromkeys(part for part in parts if part))}, seed {run.seed}"


def _with_deviation(text: str, deviation: float | None) -> Cell:
    return Cell(text, "" if deviation is None else f"± {points(deviation)}")


def _width(row: Measurement) -> Cell:
    padded = row.width - row.real_pieces
    return Cell(f"{row.width:.0f}", f"{row.real_pieces:.0f} real" if padded >= 1 else "")


def _number(value: int, word: str) -> str:
    return f"{value} {word}{'' if value == 1 else 's'}"


def anchor_of(task: str) -> str:
    return "task-" + "".join(letter if letter.isalnum() else "-" for letter in task.lower())
