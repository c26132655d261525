"""`trainer report`: read the run folders, time the models, write page and figures."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path

from shared.cli.command_line import CommandResult
from shared.errors import StoreError, UsageError
from trainer.report.config import ReportConfig
from trainer.report.page import render_page
from trainer.report.runs import read_run
from trainer.report.summary import summarise
from trainer.report.timing import machine_facts, time_runs

logger = logging.getLogger(__name__)


def run_command(config: ReportConfig) -> CommandResult:
    """Write OUTPUT and the JSON beside it. Raises ExpectedError."""
    output = Path(config.output)
    if output.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--output {output}: the report is an HTML file; name one such as report.html")
    runs = [read_run(path) for path in dict.fromkeys(config.runs)]
    timings = time_runs(runs, config) if config.timing else []
    facts = {
        "title": config.title,
        "created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": dict(machine_facts()),
    }
    summary = summarise(runs, timings, facts, config.alternations)
    figures = output.with_suffix(".json")
    page = render_page(runs, summary, timings, figures.name)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        figures.write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        output.write_text(page, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"--output {output}: {error.strerror or error}") from error
    unfinished = [run for run in runs if not run.is_finished]
    for run in unfinished:
        logger.warning("unfinished", extra={"fields": {"run": str(run.folder)}})
    lines = [
        f"{output}: {len(runs)} runs ({len(unfinished)} unfinished), {output.stat().st_size / 1e3:.0f} kB; {figures}"
    ]
    for task, one in summary["tasks"].items():
        for variant in one["variants"]:
            kept = f", {variant['retention']['mean']:.1%} of the teacher" if variant["retention"] else ""
            lines.append(
                f"  {task} {variant['variant']}: {one['metric']} {variant['score']['mean']:.4f} "
                f"({len(variant['seeds'])} seeds){kept}"
            )
    for timing in timings:
        if best := timing.speed_up():
            lines.append(f"  {timing.student}: {best.ratio:.1f} times faster ({best.dtype}, batch {best.batch_size})")
    return CommandResult({"output": str(output)} | summary, "\n".join(lines))
