"""A progress line: rewritten in place on a terminal, logged as a plain line every few seconds otherwise."""

from __future__ import annotations

import logging
import sys
import time
from typing import TextIO

logger = logging.getLogger(__name__)

TERMINAL_PERIOD_SECONDS = 0.2
LOG_PERIOD_SECONDS = 15.0
BAR_WIDTH = 24


class Progress:
    """Shows `done` of `total` units, the rate of this process, and the time left.

    `start` units were done before this process started (a resumed job). They count towards the bar, not the rate.
    """

    def __init__(self, label: str, total: int, unit: str, start: int = 0, stream: TextIO | None = None) -> None:
        self.label, self.total, self.unit, self.start = label, total, unit, start
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._began = time.monotonic()
        self._shown = self._began if not self._is_terminal else 0.0
        self._has_open_line = False

    def update(self, done: int, **fields: object) -> None:
        """Show `done` units followed by `fields`, unless a line was shown very recently."""
        now = time.monotonic()
        period = TERMINAL_PERIOD_SECONDS if self._is_terminal else LOG_PERIOD_SECONDS
        if now - self._shown < period:
            return
        self._shown = now
        rate = (done - self.start) / max(now - self._began, 1e-9)
        left = format_seconds((self.total - done) / rate) if rate > 0 else "?"
        extra = "".join(f"  {key} {_short(value)}" for key, value in fields.items())
        share = min(done / self.total, 1.0) if self.total else 1.0
        counts = f"{done:,}/{self.total:,} {self.unit}  {rate:,.1f} {self.unit}/s  {left} left{extra}"
        if self._is_terminal:
            filled = round(share * BAR_WIDTH)
            bar = "#" * filled + "-" * (BAR_WIDTH - filled)
            self._stream.write(f"\r\x1b[2K{self.label} [{bar}] {share:4.0%}  {counts}")
            self._stream.flush()
            self._has_open_line = True
        else:
            logger.info("%s %s", self.label, f"{share:.0%} {counts}")

    def close(self) -> None:
        """End the line on a terminal, so that later output starts on a new one."""
        if self._has_open_line:
            self._stream.write("\n")
            self._stream.flush()
            self._has_open_line = False


def format_seconds(seconds: float) -> str:
    """`75.2` -> `1m15s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def counted(count: float, noun: str, plural: str = "") -> str:
    """`1 shard`, `2,000 shards`. plural: of a noun that takes more than an s."""
    number = f"{count:,}" if isinstance(count, int) else f"{count:g}"
    return f"{number} {noun if count == 1 else plural or noun + 's'}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
