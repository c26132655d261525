"""Run our command lines as a user does, in a process of their own."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run_command(*arguments: str, program: str = "augment_service") -> subprocess.CompletedProcess[str]:
    """Run a command to its end; its output is text."""
    command = [sys.executable, "-m", program, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


def call_main(*arguments: str, program: str = "augment_service") -> subprocess.CompletedProcess[str]:
    """Run the same command line in this process, which saves seconds of imports per call."""
    out, err = io.StringIO(), io.StringIO()
    main = importlib.import_module(f"{program}.cli").main
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(list(arguments))
    finally:
        root.handlers[:], root.level = before[0], before[1]
    return subprocess.CompletedProcess(list(arguments), code, out.getvalue(), err.getvalue())


def kill_when(is_time: Callable[[], bool], *arguments: str, program: str = "augment_service") -> int:
    """Start a command, and SIGKILL it and its descendants once `is_time()`; returns its exit status."""
    command = [sys.executable, "-m", program, *arguments]
    process = subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 200
    while process.poll() is None and not is_time():
        assert time.monotonic() < deadline, "the moment to kill never came"
        time.sleep(0.005)
    descendants = descendants_of(process.pid)
    for pid in (process.pid, *descendants):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return process.wait()


@contextlib.contextmanager
def killing_workers(
    is_title: Callable[[bytes], bool], is_time: Callable[[int], bool], count: int
) -> Iterator[list[int]]:
    """While the block runs, SIGKILL up to `count` descendants of this process, each once `is_time(number killed)`.

    is_title: whether a process's command line is that of a worker to kill. Yields the list of killed process ids.
    """
    killed: list[int] = []
    is_over = threading.Event()

    def work() -> None:
        while len(killed) < count and not is_over.wait(0.005):
            if not is_time(len(killed)):
                continue
            for pid in descendants_of(os.getpid()):
                with contextlib.suppress(OSError):
                    if pid not in killed and is_title(Path(f"/proc/{pid}/cmdline").read_bytes()):
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)
                        break

    killer = threading.Thread(target=work)
    killer.start()
    try:
        yield killed
    finally:
        is_over.set()
        killer.join()


def descendants_of(pid: int) -> list[int]:
    """Ids of all descendants of a process."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file of an output folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
