"""Runs the steps of a plan as processes, shows their progress in one place, and leaves no orphans behind.

When this process dies, even by `kill -9`, its steps end too: on Linux the kernel sends them SIGTERM, and they write a
checkpoint and exit. They inherit a lock that makes the next call wait until they have.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from shared.cli.command_line import INTERRUPTED_EXIT_CODE
from shared.cli.progress import format_seconds
from shared.errors import ExpectedError, OutputError, StoreError, UsageError
from shared.storage.store import Store
from trainer.pipeline.place import LOGS, Place
from trainer.pipeline.steps import Step

SECONDS = "seconds.json"
GRACE_SECONDS = 60.0
LOCK_SECONDS = 90.0
_POLL_SECONDS = 0.1
_DIE_WITH_PARENT = 1


class StepError(ExpectedError):
    """A step failed; the last line of its output names the error."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[int]:
    """A lock on an output, as a file descriptor for the steps to inherit. Raises OutputError when it is in use."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + LOCK_SECONDS
    told = False
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise OutputError(
                        f"{folder} is in use by another `trainer distill` or its steps; wait for it to end"
                    ) from None
                if not told:
                    print(
                        f"{folder} is in use; waiting for the steps of an earlier run to end",
                        file=sys.stderr,
                        flush=True,
                    )
                    told = True
                time.sleep(_POLL_SECONDS)
        yield descriptor
    finally:
        os.close(descriptor)


@dataclass(slots=True, kw_only=True)
class Runner:
    """Runs steps. say: shows one line to the user."""

    place: Place
    lock: int
    say: Callable[[str], None]
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _last: dict[str, str] = field(default_factory=dict)
    _readers: dict[str, threading.Thread] = field(default_factory=dict)

    def run(self, steps: Sequence[Step]) -> None:
        """Run the steps that are not done, in parallel. Raises StepError, KeyboardInterrupt."""
        todo = [step for step in steps if not self.place.store.exists(step.done)]
        for step in steps:
            if step not in todo:
                self.say(f"{step.name}: already done")
        began = {step.name: time.monotonic() for step in todo}
        try:
            for step in todo:
                self._start(step)
            self._wait(todo, began)
        finally:
            self._stop()

    def _start(self, step: Step) -> None:
        self.say(f"$ {step.line()}")
        log = self.place.log(step.name).open("ab")
        process = subprocess.Popen(
            step.command(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(self.lock,),
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        self._running[step.name] = process
        assert process.stdout is not None
        reader = threading.Thread(target=self._read, args=(step.name, process.stdout, log), daemon=True)
        reader.start()
        self._readers[step.name] = reader

    def _read(self, name: str, stream: IO[bytes], log: IO[bytes]) -> None:
        with log, stream:
            for line in stream:
                log.write(line)
                log.flush()
                text = line.decode("utf-8", "replace").rstrip()
                if text:
                    self._last[name] = text
                    self.say(f"{name:>8} | {text}")

    def _wait(self, steps: Sequence[Step], began: dict[str, float]) -> None:
        pending = {step.name: step for step in steps}
        while pending:
            for name, step in list(pending.items()):
                code = self._running[name].poll()
                if code is None:
                    continue
                del pending[name]
                self._record(name, time.monotonic() - began[name])
                self._join(name)
                self.place.keep_log(name)
                if code in (INTERRUPTED_EXIT_CODE, -signal.SIGINT, -signal.SIGTERM):
                    raise KeyboardInterrupt
                if code != 0:
                    raise StepError(self._complaint(step, code))
                if step.marked:
                    self.place.store.put(step.done, b"")
                if not self.place.store.exists(step.done):
                    raise StepError(
                        f"step {name} ended without writing {self.place.path(step.done)}; its log is in "
                        f"{self.place.path(LOGS)}"
                    )
            time.sleep(_POLL_SECONDS)

    def _complaint(self, step: Step, code: int) -> str:
        last = self._last.get(step.name, "no message").removeprefix(f"{step.program}: error: ")
        how = f"killed by signal {-code}" if code < 0 else last
        return f"step {step.name}: {how} (run it alone: {step.line()})"

    def _stop(self) -> None:
        """Stop the running steps: they write a checkpoint, and committed work is kept."""
        alive = [process for process in self._running.values() if process.poll() is None]
        for process in alive:
            process.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        for process in alive:
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        for name in list(self._readers):
            self._join(name)
            # The error that ended the steps matters more than their logs.
            with contextlib.suppress(StoreError):
                self.place.keep_log(name)
        self._running.clear()

    def _join(self, name: str) -> None:
        self._readers.pop(name).join(timeout=5)

    def _record(self, name: str, seconds: float) -> None:
        """Add to a step's total time over all calls."""
        total = read_seconds(self.place.store)
        total[name] = round(total.get(name, 0.0) + seconds, 1)
        self.place.store.put(SECONDS, json.dumps(total, indent=1).encode())
        self.say(f"{name}: ended after {format_seconds(seconds)}")


def read_seconds(store: Store) -> dict[str, float]:
    """Seconds that each step has taken so far. Raises StoreError."""
    try:
        loaded: dict[str, float] = json.loads(store.read(SECONDS)) if store.exists(SECONDS) else {}
    except ValueError:
        return {}
    return loaded


def check_platform() -> None:
    """Raises UsageError on a platform where processes cannot be tied to their parent."""
    if os.name != "posix":
        raise UsageError("`trainer distill` needs Linux or macOS")


_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform.startswith("linux") else None


def _die_with_parent() -> None:
    """In the new process: SIGTERM when the parent dies, and the default handling of signals."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if _LIBC is not None:
        _LIBC.prctl(_DIE_WITH_PARENT, signal.SIGTERM)
