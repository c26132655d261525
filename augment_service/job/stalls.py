"""Finds actors that hang: a stopped process, a device or a network file system that never answers.

Ray notices only processes that exit. So an actor is killed if a shard, or a part in a poison hunt, takes far longer
than all others; `status` reports the stall well before that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from augment_service.job.scheduler import STALLED_FACTOR, Scheduler

Load = TypeVar("Load")

SHOWN_FROM = 1 / 3
"""Share of the limit after which `status` reports a stall."""
FIRST_LOAD_FACTOR = 3.0
"""The first load of a run gets this many times the limit: it may download the model."""
LOOK_SECONDS, AWAY_SECONDS = 1.0, 10.0
"""Time between checks. After a gap longer than the second, the driver itself was stopped, so results may be waiting."""


class LoadWatch(Generic[Load]):
    """Watches loading actors. at_least: seconds that a load always gets, three times as many for the first one."""

    def __init__(self, at_least: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._at_least, self._clock = at_least, clock
        self._began: dict[Load, float] = {}
        self._num_done, self._seconds = 0, 0.0
        self._last_look, self._not_before = clock(), 0.0

    def began(self, load: Load) -> None:
        """A load began: its actor has been placed. Time spent pending does not count."""
        self._began[load] = self._clock()

    def ended(self, load: Load, *, is_done: bool) -> None:
        """A load ended, with success or the death of its actor."""
        began = self._began.pop(load, None)
        if began is not None and is_done:
            self._num_done += 1
            self._seconds += self._clock() - began

    def look(self) -> list[tuple[Load, float]]:
        """Hanging loads, and the seconds that each has taken so far."""
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
    """Watches the work in flight; call `progressed` for each result. at_least: seconds that a shard always gets."""

    def __init__(self, scheduler: Scheduler[Any], at_least: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._scheduler, self._at_least, self._clock = scheduler, at_least, clock
        self._last_look = self._last_progress = clock()
        self._not_before = 0.0

    def progressed(self) -> None:
        """An actor finished a shard or a part."""
        self._last_progress = self._clock()

    def look(self) -> tuple[str, float] | None:
        """An actor to replace, and its seconds on one shard; None if nothing hangs."""
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
        """How long work in flight has made no progress; 0 while that is less than a third of the limit."""
        longest = self._scheduler.longest()
        if longest is None:
            return 0.0
        seconds = max(longest[1], self._clock() - self._last_progress)
        return seconds if seconds > self._limit() * SHOWN_FROM else 0.0

    def _limit(self) -> float:
        return self._scheduler.stall_limit(self._at_least)
