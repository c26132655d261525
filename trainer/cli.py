"""The training command line: one entry per stage; each imports its work only when it runs."""

from __future__ import annotations

from collections.abc import Sequence

from shared.command_line import Command
from shared.command_line import main as run_command_line

COMMANDS = (
    Command(
        "mlm", "Turn an encoder into a masked LM.", "trainer.mlm.config:MlmConfig", "trainer.mlm.train:run_command"
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `python -m trainer`; returns the exit code."""
    return run_command_line("trainer", "TinyBERT distillation that streams augmented shards.", COMMANDS, argv)
