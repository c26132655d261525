"""Prepares windows ahead of the model, keeps them in order, and measures how long the model waited.

Windows are pure functions of their number, so the batches do not depend on the number of processes. These are the
workers of torch's DataLoader, which prefetches and delivers in order.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch.utils.data import DataLoader, Dataset

from shared.errors import ExpectedError
from trainer.data.budget import Budget
from trainer.data.sources import PreparedWindow, WindowSource

WINDOWS_AHEAD = 2
PARENT_CHECK_SECONDS = 1.0

BatchT = TypeVar("BatchT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """A place in a stage: batch `batch` of window `window` of epoch `epoch` is next.

    step, tokens: batches and real tokens of this stage that come before it.
    """

    epoch: int = 0
    window: int = 0
    batch: int = 0
    step: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Generic[BatchT]):
    """One whole batch, in this rank's parts. `position`: passes done before it; `after`: the cursor after it."""

    parts: list[BatchT]
    num_rows: int
    num_tokens: int
    position: float
    before: Cursor
    after: Cursor


@dataclass(slots=True, kw_only=True)
class Loader(Generic[BatchT]):
    """The steps of a stage from a cursor on.

    num_processes: with 0, windows are prepared between steps. A batch is split over `world` ranks and `accumulate`
    parts of each. wait_seconds: time the model has waited for data since the first step, whose own wait is counted
    separately.
    """

    source: WindowSource[BatchT]
    budget: Budget
    num_processes: int
    rank: int = 0
    world: int = 1
    accumulate: int = 1
    wait_seconds: float = 0.0

    def steps(self, cursor: Cursor) -> Iterator[Step[BatchT]]:
        """Steps until the budget is spent. Re-raises errors from preparing a window."""
        places, prefetched = itertools.tee(self._places(cursor))
        windows = iter(self._windows(prefetched))
        is_first = True
        while True:
            began = time.monotonic()
            # DataLoader consumes places ahead of time; `tee` keeps them for `next(places)`.
            window = next(windows, None)
            if window is None:
                return
            epoch, index = next(places)
            if isinstance(window, ExpectedError):
                raise window
            waited = time.monotonic() - began
            if not is_first:
                self.wait_seconds += waited
            is_first = False
            for batch in range(cursor.batch, window.num_batches):
                position = window.position(batch)
                if self.budget.is_spent(position, cursor.tokens):
                    return
                after = self._after(cursor, epoch, index, batch, window)
                yield self._step(window, batch, cursor, after)
                cursor = after

    def _step(self, window: PreparedWindow[BatchT], batch: int, before: Cursor, after: Cursor) -> Step[BatchT]:
        num_parts = self.world * self.accumulate
        mine = range(self.rank * self.accumulate, (self.rank + 1) * self.accumulate)
        parts = [window.part(batch, part, num_parts, before.step) for part in mine]
        return Step(
            parts=[part for part in parts if part is not None],
            num_rows=window.num_rows(batch),
            num_tokens=window.num_tokens(batch),
            position=window.position(batch),
            before=before,
            after=after,
        )

    def _after(self, cursor: Cursor, epoch: int, index: int, batch: int, window: PreparedWindow[BatchT]) -> Cursor:
        step, tokens = cursor.step + 1, cursor.tokens + window.num_tokens(batch)
        if batch + 1 < window.num_batches:
            return Cursor(epoch=epoch, window=index, batch=batch + 1, step=step, tokens=tokens)
        if index + 1 < self.source.num_windows(epoch):
            return Cursor(epoch=epoch, window=index + 1, step=step, tokens=tokens)
        return Cursor(epoch=epoch + 1, step=step, tokens=tokens)

    def _places(self, cursor: Cursor) -> Iterator[tuple[int, int]]:
        """(epoch, window) from the cursor on, as far as the budget may reach."""
        last = self.budget.num_epochs
        epochs = itertools.count(cursor.epoch) if last is None else range(cursor.epoch, last)
        for epoch in epochs:
            first = cursor.window if epoch == cursor.epoch else 0
            for window in range(first, self.source.num_windows(epoch)):
                yield epoch, window

    def _windows(self, places: Iterator[tuple[int, int]]) -> Any:
        options: dict[str, Any] = {}
        if self.num_processes:
            # A forked child of a process with running threads may hang; a spawned one starts clean.
            options = {
                "multiprocessing_context": "spawn",
                "prefetch_factor": WINDOWS_AHEAD,
                "worker_init_fn": _end_with_parent,
            }
        return DataLoader(
            _Windows(self.source, self.rank, self.world, self.accumulate if self.num_processes else 0),
            sampler=places,
            batch_size=None,
            num_workers=self.num_processes,
            collate_fn=_unchanged,
            **options,
        )


class _Windows(Dataset[Any]):
    """Windows by (epoch, window), with only one rank's rows if they are sent to another process.

    A failure is returned as a value: DataLoader would raise it as another type, with a traceback as its message.
    """

    def __init__(self, source: WindowSource[Any], rank: int, world: int, accumulate: int) -> None:
        self._source = source
        self._rank, self._world, self._accumulate = rank, world, accumulate

    def __getitem__(self, place: tuple[int, int]) -> PreparedWindow[Any] | ExpectedError:
        try:
            window = self._source.prepare(*place)
            return window.only(self._rank, self._world, self._accumulate) if self._accumulate else window
        except ExpectedError as error:
            return error


def _end_with_parent(_worker: int) -> None:
    """Exit soon after the parent process ends, however it ended.

    DataLoader's own watchdog is not enough: after a SIGKILL of the parent, a process with an undelivered window waits
    forever for a reader of its queue.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.pid,), daemon=True).start()


def _exit_after(parent: int | None) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    os._exit(1)


def _unchanged(window: Any) -> Any:
    return window
