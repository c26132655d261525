"""SIGTERM and SIGINT both end a command with KeyboardInterrupt in the main thread and exit code 130."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

SIGNALS = (signal.SIGTERM, signal.SIGINT)

_num_received = 0


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """While the block runs, both signals raise KeyboardInterrupt; afterwards the previous handlers are restored.

    A signal that the process was started to ignore (a shell's background jobs ignore SIGINT) stays ignored. Blocks may
    be nested. Outside the main thread, where Python allows no handlers, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.getsignal(one) for one in SIGNALS}
    install()
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def install() -> None:
    """Install the handlers, after a library has installed its own inside an `interruptible` block."""
    if threading.current_thread() is not threading.main_thread():
        return
    for one in SIGNALS:
        if signal.getsignal(one) is not signal.SIG_IGN:
            signal.signal(one, _interrupt)


def num_received() -> int:
    """Signals received so far, because a library may swallow the exception."""
    return _num_received


def _interrupt(_number: int, _frame: object) -> None:
    global _num_received
    _num_received += 1
    raise KeyboardInterrupt
