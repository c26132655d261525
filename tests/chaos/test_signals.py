"""SIGTERM and SIGINT end a run with 130 in each of its phases; commits are kept, and no process stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import NUM_ROWS, Job, finished_run, job  # noqa: F401
from tests.support.command import ROOT, bytes_of, descendants_of, run_command

NUM_SHARDS = NUM_ROWS // 8


def commits(output: Path) -> int:
    return len(list(output.glob("commits/*.json")))


def surveys(pid: int, output: Path) -> bool:
    """Whether the process reads its input; a long one, which is next to the output."""
    try:
        names = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return False
    return str(output.with_name("long.tsv")) in names


def starts_ray(pid: int, _: Path) -> bool:
    names = [Path(f"/proc/{one}/cmdline") for one in descendants_of(pid)]
    return any(b"gcs_server" in name.read_bytes() for name in names if name.exists())


def loads(_: int, output: Path) -> bool:
    beats = [json.loads(path.read_text()) for path in output.glob("runs/*.json")]
    return any(beat["actors_starting"] and not beat["actors_ready"] for beat in beats)


PHASES: dict[str, Callable[[int, Path], bool]] = {
    "survey": surveys,
    "ray": starts_ray,
    "load": loads,
    "loop": lambda _, output: commits(output) >= 3,
    "finish": lambda _, output: commits(output) == NUM_SHARDS,
}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("phase", list(PHASES))
def test_a_signal_gives_130_in_every_phase(
    job: Job,  # noqa: F811
    finished_run: Path,  # noqa: F811
    tmp_path: Path,
    phase: str,
    number: signal.Signals,
) -> None:
    output = tmp_path / "out"
    arguments = job.arguments(output, "--mlm-actors", "1")
    command = [sys.executable, "-m", "augment_service", *arguments]
    if phase == "survey":
        header, *lines = Path(job.common[2]).read_text(encoding="utf-8").splitlines()
        (tmp_path / "long.tsv").write_text("\n".join([header, *lines * 4000]) + "\n", encoding="utf-8")
        command[command.index("--input") + 1] = str(tmp_path / "long.tsv")
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and not PHASES[phase](process.pid, output):
        assert time.monotonic() < deadline, f"the phase {phase} never came"
        time.sleep(0.005)
    others, num_commits = descendants_of(process.pid), commits(output)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "augment_service: interrupted; everything committed so far is kept"
    assert "Traceback" not in err
    assert out == ""
    assert commits(output) >= num_commits
    assert not (output / "_SUCCESS").exists()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in others):
        assert time.monotonic() < deadline, "a process stayed behind"
        time.sleep(0.1)
    if phase in ("loop", "finish"):
        again = run_command(*arguments)
        assert again.returncode == 0, again.stderr
        assert bytes_of(output) == bytes_of(finished_run)
