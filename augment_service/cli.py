"""The augmentation command line: one entry per command; each imports its work only when it runs."""

from __future__ import annotations

from collections.abc import Sequence

from shared.command_line import Command
from shared.command_line import main as run_command_line

COMMANDS = (
    Command(
        "run",
        "Augment a corpus into Arrow shards.",
        "augment_service.config:RunConfig",
        "augment_service.job:run_command",
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `python -m augment_service`; returns the exit code."""
    return run_command_line("augment_service", "TinyBERT data augmentation as a distributed job.", COMMANDS, argv)
