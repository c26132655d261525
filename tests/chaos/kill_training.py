"""Kills training with SIGKILL at random moments, again and again, and compares the weights with an undisturbed run.

    python -m tests.chaos.kill_training --kills 100 > benchmarks/results/training_kills.txt
    python -m tests.chaos.kill_training --kills 100 --s3 > benchmarks/results/training_kills_s3.txt

Each run is a forked child of a process that has torch loaded, so that the kills fall into training rather than into
imports. A killed run is started again, and killed again, until it ends; its weights and its metrics must then be those
of the undisturbed run, bit by bit. With --s3 the runs are in a bucket behind a proxy that breaks a tenth of the
requests, half of the killed ones go on without the files of the first machine, and the undisturbed run is on disk.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tests.support.distillation import Output, metrics_of, save_dev, save_teacher, source_rows
from tests.support.object_store import ENVIRONMENT, faulty_server, s3_client

COMMANDS = ("task", "teacher", "general", "mlm")
SLOWEST_START_SECONDS = 120.0


FAULTS = 0.1
BUCKET = "bucket"
CHECKPOINT = "checkpoint.pt"
MODEL, METRICS = "model/model.safetensors", "metrics.jsonl"


class Place(Protocol):
    """Where runs are."""

    def output(self, name: str) -> str:
        """What --output says for a run."""
        ...

    def fetch(self, name: str) -> Path:
        """The folder of a finished run."""
        ...

    def step(self, name: str) -> int | None:
        """The step of its checkpoint."""
        ...

    def killed(self, draw: random.Random) -> str:
        """Called after a kill; what happened to this machine."""
        ...


def main() -> int:
    """Print one line per kill and per finished run; 0 when all weights were the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=COMMANDS)
    parser.add_argument("--s3", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        place: Place = Disk(folder)
        if options.s3:
            place = Bucket(folder / "bucket", *stack.enter_context(faulty_server(FAULTS)))
        differences = storm(folder, place, options.commands, options.kills, options.seed)
    return 1 if differences else 0


def storm(folder: Path, place: Place, names: Sequence[str], kills: int, seed: int) -> int:
    """Kill `kills` times, spread over the commands `names`; returns how many finished runs differed."""
    draw, done, differences = random.Random(seed), 0, 0
    disk = Disk(folder)
    commands = {name: one for name, one in _commands(folder).items() if name in names}
    undisturbed, seconds = {}, {}
    for name, arguments in commands.items():
        for one in (disk,) if isinstance(place, Disk) else (disk, place):
            began = time.monotonic()
            assert _run(arguments, one, name, None) == 0
            seconds[name] = time.monotonic() - began
        undisturbed[name] = _outcome(disk.fetch(name))
        _say(f"{name}: undisturbed in {seconds[name]:.1f} s, {undisturbed[name][:16]}")
    runs = 0
    while done < kills:
        name = names[runs % len(names)]
        run, own = f"run-{runs}", 0
        runs += 1
        while True:
            moment = draw.uniform(0.0, 1.2 * seconds[name]) if done < kills else None
            if _run(commands[name], place, run, moment) == 0:
                break
            done, own = done + 1, own + 1
            what = place.killed(draw)
            _say(f"kill {done}: {name} after {moment:.2f} s, the checkpoint is at step {place.step(run)}{what}")
        is_same = _outcome(place.fetch(run)) == undisturbed[name]
        differences += not is_same
        _say(f"{name}: killed {own} times, {'the same bits' if is_same else 'DIFFERENT'}")
        shutil.rmtree(place.fetch(run))
    _say(f"{done} kills, {runs} runs, {differences} different")
    return differences


def _say(line: str) -> None:
    print(line, flush=True)


class Disk:
    """Runs in folders."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def output(self, name: str) -> str:
        """The folder."""
        return str(self._folder / name)

    def fetch(self, name: str) -> Path:
        """The folder itself."""
        return self._folder / name

    def step(self, name: str) -> int | None:
        """The step of its checkpoint."""
        return _checkpoint_step(self._folder / name)

    def killed(self, draw: random.Random) -> str:
        """Nothing more."""
        return ""


class Bucket:
    """Runs in a bucket, whose server is at `direct`; training reaches it through `faulty`. folder: this machine's."""

    def __init__(self, folder: Path, direct: str, faulty: str) -> None:
        self._folder, self._client = folder, s3_client(direct)
        self._client.create_bucket(Bucket=BUCKET)
        os.environ |= ENVIRONMENT | {"AWS_ENDPOINT_URL_S3": faulty, "TRAINER_CACHE": str(folder / "cache")}

    def output(self, name: str) -> str:
        """The URI."""
        return f"s3://{BUCKET}/{name}"

    def fetch(self, name: str) -> Path:
        """A folder with the model and the metrics."""
        folder = self._folder / name
        for one in (MODEL, METRICS):
            self._download(f"{name}/{one}", folder / one)
        return folder

    def step(self, name: str) -> int | None:
        """The step of the newest commit's checkpoint."""
        listed: Mapping[str, Any] = self._client.list_objects_v2(Bucket=BUCKET, Prefix=f"{name}/run-state/commit-")
        commits = [one["Key"] for one in listed.get("Contents", [])]
        if not commits:
            return None
        files = json.loads(self._client.get_object(Bucket=BUCKET, Key=max(commits))["Body"].read())["files"]
        if CHECKPOINT not in files:
            return None
        self._download(f"{name}/{files[CHECKPOINT]['object']}", self._folder / "step" / CHECKPOINT)
        return _checkpoint_step(self._folder / "step")

    def killed(self, draw: random.Random) -> str:
        """Half of the time the machine is lost with all of its files."""
        if draw.random() < 0.5:
            return ""
        shutil.rmtree(self._folder / "cache", ignore_errors=True)
        return ", its machine is lost"

    def _download(self, key: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read())


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


def _run(arguments: Sequence[str], place: Place, name: str, kill_after_seconds: float | None) -> int:
    """Exit status of a run in a forked child; -9 when it was killed."""
    child = os.fork()
    if child == 0:
        _child([*arguments, "--output", place.output(name)])
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
    digest = hashlib.sha256((output / MODEL).read_bytes())
    digest.update(json.dumps(metrics_of(output), sort_keys=True).encode())
    return digest.hexdigest()


def _checkpoint_step(output: Path) -> int | None:
    from trainer.checkpoint import read_checkpoint

    found = read_checkpoint(output / CHECKPOINT, "cpu")
    return found.state.step if found else None


if __name__ == "__main__":
    sys.exit(main())
