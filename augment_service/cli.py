"""The augmentation command line: one entry per command, whose code is imported only when it runs."""

from __future__ import annotations

from collections.abc import Sequence

from shared.cli.command_line import Command
from shared.cli.command_line import main as run_command_line

_CONFIG = "augment_service.config"

COMMANDS = (
    Command(
        "run",
        "Augment a corpus into Arrow shards.",
        f"{_CONFIG}:RunConfig",
        "augment_service.job.command:run_command",
    ),
    Command(
        "candidates",
        "Show the candidate sets of texts; reads and writes JSONL.",
        f"{_CONFIG}:CandidatesConfig",
        "augment_service.candidates:run_command",
    ),
    Command(
        "status",
        "Show a run's progress.",
        f"{_CONFIG}:OutputConfig",
        "augment_service.job.inspect_output:status_command",
    ),
    Command(
        "plan",
        "Estimate the time and storage of a run.",
        f"{_CONFIG}:PlanConfig",
        "augment_service.plan.command:run_command",
    ),
    Command(
        "verify",
        "Check every shard of a run; exits with 1 if any check fails.",
        f"{_CONFIG}:OutputConfig",
        "augment_service.job.inspect_output:verify_command",
    ),
    Command(
        "export",
        "Export a run's samples to one TSV, JSONL or Parquet file.",
        f"{_CONFIG}:ExportConfig",
        "augment_service.export:run_command",
    ),
    Command(
        "serve",
        "Serve samples and candidates over HTTP.",
        f"{_CONFIG}:ServeConfig",
        "augment_service.service.server:run_command",
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `python -m augment_service`; returns the exit code."""
    return run_command_line("augment_service", "TinyBERT data augmentation as a distributed job.", COMMANDS, argv)
