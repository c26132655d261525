"""Prepares windows ahead of the model and keeps them in order; says how long the model waited.

Windows are pure functions of their number, so one process or four give the same batches. Processes are torch's own
DataLoader: it prefetches, delivers in order, and ends its workers when this process dies.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch.utils.data import DataLoader, Dataset

from shared.errors import ExpectedError
from trainer.data.batches import Batch, Window, make_batch
from trainer.data.sources import WindowSource

WINDOWS_AHEAD = 2


@dataclass(slots=True)
class Cursor:
    """A place in a stage: batch `batch` of window `window` of epoch `epoch` comes next."""

    epoch: int = 0
    window: int = 0
    batch: int = 0


@dataclass(slots=True)
class Step:
    """One whole batch, in this rank's parts. `position`: epochs done before it; `after`: where the next one stands."""

    parts: list[Batch]
    num_rows: int
    position: float
    after: Cursor


@dataclass(slots=True)
class Loader:
    """Steps of a stage from a cursor on. `wait_seconds` adds up while the model waits, after the first step."""

    source: WindowSource
    epochs: float
    pad_id: int
    num_processes: int
    rank: int = 0
    world: int = 1
    accumulate: int = 1
    wait_seconds: float = 0.0
    first_wait_seconds: float = field(default=0.0)

    def steps(self, cursor: Cursor) -> Iterator[Step]:
        """Steps until `epochs` are done. Raises what preparing a window raised."""
        places = [
            (epoch, window)
            for epoch in range(cursor.epoch, math.ceil(self.epochs))
            for window in range(self.source.num_windows(epoch))
            if (epoch, window) >= (cursor.epoch, cursor.window)
        ]
        windows = iter(self._windows(places))
        num_parts = self.world * self.accumulate
        for number, (epoch, index) in enumerate(places):
            began = time.monotonic()
            window = next(windows)
            if isinstance(window, ExpectedError):
                raise window
            waited = time.monotonic() - began
            if number:
                self.wait_seconds += waited
            else:
                self.first_wait_seconds = waited
            if window.begin >= self.epochs:
                return
            first = cursor.batch if (epoch, index) == (cursor.epoch, cursor.window) else 0
            for batch in range(first, window.num_batches):
                if window.position(batch) >= self.epochs:
                    return
                mine = range(self.rank * self.accumulate, (self.rank + 1) * self.accumulate)
                parts = [make_batch(window, batch, self.pad_id, part, num_parts) for part in mine]
                last = batch + 1 == window.num_batches
                after = Cursor(epoch, index, batch + 1) if not last else self._next(epoch, index)
                rows = int(window.batch_offsets[batch + 1] - window.batch_offsets[batch])
                yield Step([part for part in parts if part is not None], rows, window.position(batch), after)

    def _next(self, epoch: int, window: int) -> Cursor:
        if window + 1 < self.source.num_windows(epoch):
            return Cursor(epoch, window + 1, 0)
        return Cursor(epoch + 1, 0, 0)

    def _windows(self, places: list[tuple[int, int]]) -> Any:
        dataset = _Windows(self.source, places)
        options: dict[str, Any] = {}
        if self.num_processes:
            # A forked child of a process with running threads may hang; a spawned one starts clean.
            options = {"multiprocessing_context": "spawn", "prefetch_factor": WINDOWS_AHEAD}
        return DataLoader(dataset, batch_size=None, num_workers=self.num_processes, collate_fn=_as_it_is, **options)


class _Windows(Dataset[Any]):
    """A failure comes back as a value: DataLoader would raise it as another type, with a traceback for a message."""

    def __init__(self, source: WindowSource, places: list[tuple[int, int]]) -> None:
        self._source, self._places = source, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Window | ExpectedError:
        try:
            return self._source.prepare(*self._places[index])
        except ExpectedError as error:
            return error


def _as_it_is(window: Any) -> Any:
    return window
