"""Several ranks of a training command as plain processes, without Ray.

usage: python -m tests.support.ranks CONFIG.json RANK WORLD

SLOW_DISK=SECONDS: the first rank takes that long before it writes the best weights.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.support.command import ROOT


def run_ranks(options: dict[str, object], folder: Path, world: int, timeout_seconds: float = 200) -> None:
    """Run a training command with these options in `world` processes; fails when one of them does.

    options: those of the command, and `command`: its name (default `task`).
    """
    folder.mkdir(parents=True)
    path = folder / "options.json"
    path.write_text(json.dumps(options | {"output": str(folder)}))
    command = [sys.executable, "-m", "tests.support.ranks", str(path)]
    processes = [
        subprocess.Popen([*command, str(rank), str(world)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for rank in range(world)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=timeout_seconds)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()


def _main(path: Path, rank: int, world: int) -> None:
    import torch
    import torch.distributed as distributed

    from trainer import general, loop, task, teacher
    from trainer.config import GeneralConfig, LoopConfig, TaskConfig, TeacherConfig
    from trainer.state import Worker

    commands: dict[str, tuple[type[LoopConfig], Any]] = {
        "task": (TaskConfig, task._work),
        "teacher": (TeacherConfig, teacher._work),
        "general": (GeneralConfig, general._work),
    }
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{path}.rendezvous", rank=rank, world_size=world)
    if rank == 0 and (delay := float(os.environ.get("SLOW_DISK", "0"))):
        _slow_down(loop, delay)
    options = json.loads(path.read_text())
    kind, work = commands[options.pop("command", "task")]
    work(kind.build(options), Worker(device="cpu", dtype=torch.float32, rank=rank, world=world))
    distributed.destroy_process_group()


def _slow_down(loop: Any, seconds: float) -> None:
    write = loop.write_best

    def write_slowly(run: Any) -> None:
        time.sleep(seconds)
        write(run)

    loop.write_best = write_slowly


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
