"""`python -m tests.support.killed_trainer STAGE ...`: runs `python -m trainer ...`, with SIGKILL at a chosen moment.

The moment is the second checkpoint due after the first window of stage number STAGE: the one before it is complete,
steps done since are lost, and half a file is left under the temporary name. Killing from outside would come too late on
a fast machine.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from trainer.checkpoint import save_checkpoint
from trainer.cli import main


def run(stage: int, arguments: list[str]) -> int:
    """Run the command line; never returns if two checkpoints are due after the first window of stage `stage`."""
    in_mid_stage = 0

    def save_or_die(path: Path, content: Mapping[str, Any]) -> None:
        nonlocal in_mid_stage
        at = content["state"]
        in_mid_stage += at["stage"] == stage and at["cursor"]["window"] >= 1
        if in_mid_stage == 2:
            path.with_name(path.name + ".partial").write_bytes(b"half a checkpoi")
            os.kill(os.getpid(), signal.SIGKILL)
        save_checkpoint(path, content)

    with mock.patch("trainer.checkpoint.save_checkpoint", save_or_die):
        return main(arguments)


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), sys.argv[2:]))
