"""Kills training with SIGKILL at random moments, again and again, and compares the weights with an undisturbed run.

    python -m tests.chaos.kill_training --kills 100 > benchmarks/results/training_kills.txt

Each run is a forked child of a process that has torch loaded, so that the kills fall into training rather than into
imports. A killed run is started again, and killed again, until it ends; its weights and its metrics must then be those
of the undisturbed run, bit by bit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.distillation import Output, metrics_of, save_dev, save_teacher, source_rows

COMMANDS = ("task", "teacher", "general", "mlm")
SLOWEST_START_SECONDS = 120.0


def main() -> int:
    """Print one line per kill and per finished run; 0 when all weights were the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        differences = storm(Path(name), options.kills, options.seed, lambda line: print(line, flush=True))
    return 1 if differences else 0


def storm(folder: Path, kills: int, seed: int, say: Callable[[str], object]) -> int:
    """Kill `kills` times, spread over all commands; returns how many finished runs differed."""
    draw, done, differences = random.Random(seed), 0, 0
    commands = _commands(folder)
    undisturbed, seconds = {}, {}
    for name, arguments in commands.items():
        began = time.monotonic()
        assert _run([*arguments, "--output", str(folder / name)], None) == 0
        seconds[name] = time.monotonic() - began
        undisturbed[name] = _outcome(folder / name)
        say(f"{name}: undisturbed in {seconds[name]:.1f} s, {undisturbed[name][:16]}")
    runs = 0
    while done < kills:
        name = COMMANDS[runs % len(COMMANDS)]
        output, own = folder / f"run-{runs}", 0
        runs += 1
        while True:
            moment = draw.uniform(0.0, 1.2 * seconds[name]) if done < kills else None
            if _run([*commands[name], "--output", str(output)], moment) == 0:
                break
            done, own = done + 1, own + 1
            step = _checkpoint_step(output)
            say(f"kill {done}: {name} after {moment:.2f} s, the checkpoint is at step {step}")
        is_same = _outcome(output) == undisturbed[name]
        differences += not is_same
        say(f"{name}: killed {own} times, {'the same bits' if is_same else 'DIFFERENT'}")
        shutil.rmtree(output)
    say(f"{done} kills, {runs} runs, {differences} different")
    return differences


def _commands(folder: Path) -> dict[str, list[str]]:
    teacher, dev = str(save_teacher(folder / "encoder")), str(save_dev(folder / "dev.tsv", 60))
    Output(folder / "augmented", num_rows=60, emit="candidates").finish()
    (folder / "corpus.txt").write_text("\n".join(row.text_a for row in source_rows(400)) + "\n")
    common = ["--threads", "1", "--loader-workers", "0", "--batch-size", "8", "--device", "cpu", "--dtype", "fp32"]
    common += ["--checkpoint-seconds", "0.1", "--epochs", "4", "--log-level", "error"]
    corpus = ["--corpus", str(folder / "corpus.txt"), "--max-length", "32"]
    shards = ["--augmented", str(folder / "augmented"), "--teacher", teacher, "--student", "2,16,32,4"]
    cache = ["--token-cache", str(folder / "cache")]
    return {
        "task": ["task", "--task", "SST-2", *shards, "--dev", dev, *cache, "--window-shards", "2", *common],
        "teacher": ["teacher", "--task", "SST-2", "--train", dev, "--encoder", teacher, *common],
        "general": ["general", *corpus, "--teacher", teacher, "--student", "2,16,32,4", *common],
        "mlm": ["mlm", *corpus, "--encoder", teacher, *common],
    }


def _run(arguments: list[str], kill_after_seconds: float | None) -> int:
    """Exit status of a command in a forked child; -9 when it was killed."""
    child = os.fork()
    if child == 0:
        _child(arguments)
    deadline = time.monotonic() + (SLOWEST_START_SECONDS if kill_after_seconds is None else kill_after_seconds)
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)


def _child(arguments: list[str]) -> None:
    from trainer.cli import main as trainer

    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    code = 70
    try:
        code = trainer(arguments)
    finally:
        os._exit(code)


def _outcome(output: Path) -> str:
    """Digest of the final weights and of everything the run measured."""
    digest = hashlib.sha256((output / "model" / "model.safetensors").read_bytes())
    digest.update(json.dumps(metrics_of(output), sort_keys=True).encode())
    return digest.hexdigest()


def _checkpoint_step(output: Path) -> int | None:
    from trainer.checkpoint import CHECKPOINT, read_checkpoint

    found = read_checkpoint(output / CHECKPOINT, "cpu")
    return found.state.step if found else None


if __name__ == "__main__":
    sys.exit(main())
