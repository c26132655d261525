"""`python -m tests.support.killed_trainer STAGE ...`: `python -m trainer ...`, with SIGKILL at a chosen moment.

The moment is the second checkpoint that is due in the middle of stage number STAGE: the one before it is whole, steps
done since are lost, and half a file stands under the temporary name. Watching from outside comes too late when the
machine is fast.
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
    """The command line, which never returns when stage `stage` has two checkpoints or more after its first window."""
    in_mid_stage = 0

    def save_or_die(path: Path, state: Mapping[str, Any]) -> None:
        nonlocal in_mid_stage
        at = state["state"]
        in_mid_stage += at["stage"] == stage and at["cursor"]["window"] >= 1
        if in_mid_stage == 2:
            path.with_name(path.name + ".partial").write_bytes(b"half a checkpoi")
            os.kill(os.getpid(), signal.SIGKILL)
        save_checkpoint(path, state)

    with mock.patch("trainer.loop.save_checkpoint", save_or_die):
        return main(arguments)


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), sys.argv[2:]))
