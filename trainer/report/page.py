"""The report as one self-contained HTML page with its styles and charts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from shared.cli.progress import counted
from trainer.report.figures import Summary
from trainer.report.runs import Run
from trainer.report.sections import other_section, speed_section, task_section

TEMPLATES = Path(__file__).with_name("templates")


def render_page(runs: Sequence[Run], summary: Summary, json_name: str) -> str:
    """The whole page. `json_name`: the file next to it that holds the figures unrounded.

    The templates escape every text; the style sheet and the charts are inserted as they are.
    """
    sections = [task_section(task, runs, summary) for task in summary.tasks]
    sections += [speed_section(summary.timings), other_section(runs, summary)]
    finished = sum(run.is_finished for run in runs)
    unfinished = len(runs) - finished
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html.j2").render(
        title=summary.title,
        created=summary.created,
        machine=summary.machine,
        counted=counted(finished, "finished run") + (f", {unfinished} unfinished" if unfinished else ""),
        sections=[one for one in sections if one],
        style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        json_name=json_name,
    )
