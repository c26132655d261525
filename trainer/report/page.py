"""The report as one HTML page that needs nothing else: styles and charts stand in it (pure but for its style sheet)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from trainer.report.runs import Run
from trainer.report.sections import anchor_of, other_section, speed_section, task_section
from trainer.report.timing import Timing

STYLE = Path(__file__).with_name("page.css")


def render_page(runs: Sequence[Run], summary: Mapping[str, Any], timings: Sequence[Timing], json_name: str) -> str:
    """The whole page."""
    sections = [(anchor_of(task), task, task_section(task, runs, summary, timings)) for task in summary["tasks"]]
    sections += [
        ("speed", "Speed", speed_section(timings)),
        ("before", "Teachers and general distillation", other_section(runs, summary)),
    ]
    shown = [one for one in sections if one[2]]
    links = "".join(f'<a href="#{anchor}">{escape(name)}</a>' for anchor, name, _ in shown)
    finished = sum(run.is_finished for run in runs)
    unfinished = len(runs) - finished
    counted = f"{finished} finished run{'' if finished == 1 else 's'}" + (
        f", {unfinished} unfinished" if unfinished else ""
    )
    machine = summary["machine"]
    title = escape(str(summary["title"]))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the figures</a>
<header>
<h1>{title}</h1>
<p class="meta">{escape(counted)} · {escape(str(summary["created"]))}</p>
<nav aria-label="Sections">{links}</nav>
</header>
<main id="content">
{"".join(content for _, _, content in shown)}
</main>
<footer>
<p>Scores are on the dev file, times 100. <em>Kept</em> is the student's score by its own teacher's on the same rows;
<em>smaller</em> the teacher's parameters by the student's; <em>faster</em> the teacher's time by the student's.
All figures, unrounded: <code>{escape(json_name)}</code>.</p>
<p>{escape(str(machine["processor"]))}, {machine["cores"]} cores; torch {escape(machine["torch"])}, transformers
{escape(machine["transformers"])}, Python {escape(machine["python"])}.</p>
</footer>
</body>
</html>
"""
