"""Full garbage collections at quiet moments.

A full collection visits every object that could be part of a cycle, and nothing else runs meanwhile: 150 ms once the
cache of candidates is full. By default, Python starts one whenever there are a quarter more such objects, which is in
the middle of requests. Collections of young objects, which take a millisecond, stay automatic.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable

CHECK_SECONDS = 1.0
IDLE_SECONDS = 30.0
"""An idle service is collected once in so many seconds, if objects have become old since the last time."""
LATEST_SECONDS = 300.0
"""A service that is never idle is collected once in so many seconds."""
_NEVER = 2**31 - 1


async def collect_when_idle(is_idle: Callable[[], bool]) -> None:
    """Replace the automatic full collections until cancelled. Use one per process."""
    young, middle, old = gc.get_threshold()
    gc.set_threshold(young, middle, _NEVER)
    last = time.monotonic()
    try:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            waited = time.monotonic() - last
            is_due = waited > LATEST_SECONDS or (waited > IDLE_SECONDS and is_idle())
            # The number of collections whose survivors became old.
            if is_due and gc.get_count()[2]:
                gc.collect()
                last = time.monotonic()
    finally:
        gc.set_threshold(young, middle, old)
