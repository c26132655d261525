"""Finds actors that hang: a process that is stopped, a device or a network file system that never answers.

Ray notices only processes that end. So a shard, or a part that a poison hunt tries, that takes far longer than all
others costs its actor its life, and `status` says that the run stalls a good while before that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from augment_service.job.scheduler import STALLED_FACTOR, Scheduler

Load = TypeVar("Load")

SHOWN_FROM = 1 / 3
"""Share of the limit after which `status` says that the run stalls."""
FIRST_LOAD_FACTOR = 3.0
"""The first load of a run gets this many times as long: it may download the model."""
LOOK_SECONDS, AWAY_SECONDS = 1.0, 10.0
"""Time between two looks. After a longer one than the second, the driver itself was stopped, so answers may wait."""


class LoadWatch(Generic[Load]):
    """Looks at actors that load. at_least: seconds that a load always gets, three times as long for the first one."""

    def __init__(self, at_least: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._at_least, self._clock = at_least, clock
        self._began: dict[Load, float] = {}
        self._num_done, self._seconds = 0, 0.0
        self._last_look, self._not_before = clock(), 0.0

    def began(self, load: Load) -> None:
        """A load began: its actor has a place. Waiting for room does not count."""
        self._began[load] = self._clock()

    def ended(self, load: Load, *, is_done: bool) -> None:
        """A load ended, well or with the end of its actor."""
        began = self._began.pop(load, None)
        if began is not None and is_done:
            self._num_done += 1
            self._seconds += self._clock() - began

    def look(self) -> list[tuple[Load, float]]:
        """Loads that hang, and for how many seconds each has gone on."""
        now = self._clock()
        if now - self._last_look > AWAY_SECONDS:
            self._not_before = now + AWAY_SECONDS
        self._last_look = now
        if now < self._not_before:
            return []
        limit = self._limit()
        return [(load, now - began) for load, began in self._began.items() if now - began > limit]

    def _limit(self) -> float:
        if not self._num_done:
            return self._at_least * FIRST_LOAD_FACTOR
        return max(self._at_least, self._seconds / self._num_done * STALLED_FACTOR)


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
