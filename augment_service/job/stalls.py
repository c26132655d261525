"""Finds actors that hang: a process that is stopped, a device or a network file system that never answers.

Ray notices only processes that end. So a shard, or a part that a poison hunt tries, that takes far longer than all
others costs its actor its life, and `status` says that the run stalls a good while before that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from augment_service.job.scheduler import Scheduler

SHOWN_FROM = 1 / 3
"""Share of the limit after which `status` says that the run stalls."""
LOOK_SECONDS, AWAY_SECONDS = 1.0, 10.0
"""Time between two looks. After a longer one than the second, the driver itself was stopped, so answers may wait."""


class StallWatch:
    """Looks at the work in flight; call `progressed` for each answer. at_least: seconds that a shard always gets."""

    def __init__(self, scheduler: Scheduler[Any], at_least: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._scheduler, self._at_least, self._clock = scheduler, at_least, clock
        self._last_look = self._last_progress = clock()
        self._not_before = 0.0

    def progressed(self) -> None:
        """An actor finished a shard or a part."""
        self._last_progress = self._clock()

    def look(self) -> tuple[str, float] | None:
        """An actor to replace, and how many seconds it has worked on one shard; None as long as nothing hangs."""
        now = self._clock()
        if now - self._last_look < min(LOOK_SECONDS, self._at_least / 10):
            return None
        if now - self._last_look > AWAY_SECONDS:
            self._not_before = now + AWAY_SECONDS
        self._last_look = now
        longest = self._scheduler.longest()
        if longest is None:
            # Time without work does not count.
            self._last_progress = now
            return None
        return longest if longest[1] > self._limit() and now >= self._not_before else None

    def stalled_seconds(self) -> float:
        """How long nothing has come of work in flight, 0 while that is less than a third of the limit."""
        longest = self._scheduler.longest()
        if longest is None:
            return 0.0
        seconds = max(longest[1], self._clock() - self._last_progress)
        return seconds if seconds > self._limit() * SHOWN_FROM else 0.0

    def _limit(self) -> float:
        return self._scheduler.stall_limit(self._at_least)
