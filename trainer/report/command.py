"""`trainer report`: read the run folders, time the models, write page and figures."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from shared.cli.command_line import CommandResult
from shared.cli.progress import counted
from shared.errors import UsageError
from shared.storage.objects import is_remote
from shared.storage.whole_file import check_target, whole_files
from trainer.report.config import ReportConfig
from trainer.report.fetched_run import fetch_run
from trainer.report.figures import PageFacts, Summary
from trainer.report.measurements import Timing
from trainer.report.page import render_page
from trainer.report.runs import Run, read_run
from trainer.report.summary import summarise
from trainer.report.timing import machine_facts, time_runs

logger = logging.getLogger(__name__)


def run_command(config: ReportConfig) -> CommandResult:
    """Write OUTPUT and, next to it, the JSON file with the figures. Raises ExpectedError."""
    output, suffix = config.output, PurePosixPath(config.output).suffix
    if suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--output {output}: the report is an HTML file; choose a name such as report.html")
    check_target(output, "--output")
    with tempfile.TemporaryDirectory(prefix="tinybert-report-") as scratch:
        runs = [_read(path, Path(scratch) / str(number)) for number, path in enumerate(dict.fromkeys(config.runs))]
        timings = time_runs(runs, config) if config.timing else []
    created = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    facts = PageFacts(title=config.title, created=created, machine=machine_facts())
    summary = summarise(runs, timings, facts, config.alternations)
    figures = output.removesuffix(suffix) + ".json"
    page = render_page(runs, summary, PurePosixPath(figures).name).encode()
    content = json.dumps(summary.as_dict(), indent=1, ensure_ascii=False) + "\n"
    with whole_files(figures, output) as (figures_file, page_file):
        figures_file.write_text(content, encoding="utf-8")
        page_file.write_bytes(page)
    unfinished = [run for run in runs if not run.is_finished]
    for run in unfinished:
        logger.warning("unfinished", extra={"fields": {"run": run.folder}})
    size = f"{len(page) / 1e3:.0f} kB"
    first = f"{output}: {counted(len(runs), 'run')} ({len(unfinished)} unfinished), {size}; {figures}"
    text = "\n".join([first, *_score_lines(summary), *_speed_lines(timings)])
    return CommandResult({"output": output} | summary.as_dict(), text)


def _read(path: str, scratch: Path) -> Run:
    return read_run(path, fetch_run(path, scratch)) if is_remote(path) else read_run(path)


def _score_lines(summary: Summary) -> list[str]:
    return [
        f"  {name} {one.variant}: {task.metric} {one.score.mean:.4f} on the {task.scored_on} rows "
        f"({counted(len(one.seeds), 'seed')})"
        + (f", {one.retention.mean:.1%} of the teacher's score" if one.retention else "")
        for name, task in summary.tasks.items()
        for one in task.variants
    ]


def _speed_lines(timings: Sequence[Timing]) -> list[str]:
    return [
        f"  {timing.student}: {best.ratio:.1f} times faster ({best.dtype}, batch {best.batch_size})"
        for timing in timings
        if (best := timing.speed_up())
    ]
