"""Two workers of Ray Train, one killed, or both stopped by Ctrl-C: run again, the command ends with the same bits."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.command import ROOT, descendants_of
from tests.support.distillation import metrics_of, save_dev, save_teacher

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SECONDS = 240


class Training:
    """A command in a session of its own, stopped for good when the block ends."""

    def __init__(self, command: list[str], output: Path) -> None:
        self._checkpoint = output / "checkpoint.pt"
        self._before = self._changed()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trainer", *command, "--output", str(output)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Training:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def wait_for_checkpoint(self) -> None:
        """Until this process has written one."""
        deadline = time.monotonic() + SECONDS
        while self._changed() == self._before:
            assert self.process.poll() is None, self.process.stderr.read() if self.process.stderr else ""
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def _changed(self) -> int:
        return self._checkpoint.stat().st_mtime_ns if self._checkpoint.exists() else 0

    def descendants(self) -> dict[int, str]:
        """Process id -> title."""
        return {pid: _title(pid) for pid in descendants_of(self.process.pid)}

    def workers(self) -> list[int]:
        """Ids of the processes that train."""
        return sorted(pid for pid, title in self.descendants().items() if title.startswith("ray::RayTrainWorker"))

    def ended(self) -> tuple[int, str]:
        """Exit status and standard error."""
        _, errors = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, errors


def _title(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def wait_until_gone(processes: dict[int, str], seconds: float) -> None:
    """Fails for a process that is still there, under the same title, after this time."""
    deadline = time.monotonic() + seconds
    while left := {pid: title for pid, title in processes.items() if title and _title(pid) == title}:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("inputs")
    dev, encoder = str(save_dev(folder / "dev.tsv", 60)), str(save_teacher(folder / "encoder"))
    options = ["--threads", "1", "--loader-workers", "0", "--batch-size", "8", "--device", "cpu", "--dtype", "fp32"]
    options += ["--epochs", "60", "--checkpoint-seconds", "0.2", "--workers", "2"]
    return ["teacher", "--task", "SST-2", "--train", dev, "--encoder", encoder, *options]


@pytest.fixture(scope="module")
def undisturbed(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    with Training(command, output) as training:
        code, errors = training.ended()
    assert code == 0, errors
    return output


def test_a_killed_worker_and_ctrl_c_each_leave_a_checkpoint_to_resume_from(
    command: list[str], undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    with Training(command, output) as training:
        training.wait_for_checkpoint()
        check_killed_worker(training)
    with Training(command, output) as training:
        training.wait_for_checkpoint()
        check_ctrl_c(training)
    with Training(command, output) as training:
        code, errors = training.ended()
    assert code == 0, errors
    assert "resumed" in errors
    # Ray Train's parts for clusters have nothing to say.
    assert not [one for one in errors.splitlines() if "Failed to query" in one or "PreemptionWatcher" in one]
    name = "model/model.safetensors"
    assert (output / name).read_bytes() == (undisturbed / name).read_bytes()
    assert metrics_of(output) == metrics_of(undisturbed)


def check_killed_worker(training: Training) -> None:
    """A killed worker ends the command with one line."""
    processes = training.descendants()
    os.kill(training.workers()[1], signal.SIGKILL)
    code, errors = training.ended()
    assert code == 1
    # Processes of Ray itself complain about other Rays that happen to run on this machine.
    own = [one for one in errors.splitlines() if not one.startswith("(raylet)")]
    assert not [one for one in own if "Traceback" in one]
    (line,) = [one for one in own if one.startswith("trainer: error:")]
    assert line.endswith("run the same command again to resume from the last checkpoint")
    wait_until_gone(processes, 60)


def check_ctrl_c(training: Training) -> None:
    """Ctrl-C leaves a checkpoint of this moment."""
    processes, began = training.descendants(), time.monotonic()
    training.process.send_signal(signal.SIGINT)
    code, errors = training.ended()
    assert code == 130, errors
    assert "resumed" in errors
    assert "checkpoint=written" in errors
    assert time.monotonic() - began < 60
    wait_until_gone(processes, 60)
