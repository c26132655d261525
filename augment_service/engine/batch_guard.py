"""Runs model batches: times them, and recovers from running out of memory.

The guard first releases freed memory and retries the same batch, which gives identical results. If that fails too, it
halves the batch. On the CPU this also gives identical results; on a GPU other batch shapes may change the last digits
of a float, so the number of halved batches is recorded in the shard's commit (decision 0011).
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from shared.compute.memory import release_freed_memory

logger = logging.getLogger(__name__)

Input = TypeVar("Input")
Result = TypeVar("Result")

_CPU_SIGNS = ("can't allocate memory", "not enough memory", "Cannot allocate memory", "std::bad_alloc")


class BatchGuard:
    """Runs batches and counts them in `batches` and `halved`; `seconds` is the device's compute time.

    observe: if given, called with the seconds of each batch. on_cuda: calls are asynchronous there, so times come from
    CUDA events that are read later.
    """

    def __init__(self, observe: Callable[[float], None] | None = None, *, on_cuda: bool = False) -> None:
        self.batches, self.halved, self._seconds = 0, 0, 0.0
        self._observe, self._on_cuda = observe, on_cuda
        self._running: list[tuple[torch.cuda.Event, torch.cuda.Event, bool]] = []

    @property
    def seconds(self) -> float:
        """Seconds of all computations so far; waits for those still running."""
        while self._running:
            started, ended, is_batch = self._running.pop(0)
            ended.synchronize()
            self._took(started.elapsed_time(ended) / 1e3, is_batch)
        return self._seconds

    def run(self, compute: Callable[[Sequence[Input]], Tensor], inputs: Sequence[Input]) -> Tensor:
        """`compute(inputs)`, in parts if memory runs out. Raises its error if even a single input is too large."""
        result = self._timed(lambda: self._run(compute, inputs, _joined, may_try_again=True), is_batch=True)
        self.batches += 1
        return result

    def run_head(
        self, compute: Callable[[Tensor], Result], states: Tensor, join: Callable[[Sequence[Result]], Result]
    ) -> Result:
        """`compute(states)`, if memory runs out in parts of rows that `join` combines. Not counted as a batch."""
        return self._timed(lambda: self._run(compute, states, join, may_try_again=True), is_batch=False)

    def _timed(self, compute: Callable[[], Result], is_batch: bool) -> Result:
        if not self._on_cuda:
            began = time.perf_counter()
            result = compute()
            self._took(time.perf_counter() - began, is_batch)
            return result
        started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        started.record()
        result = compute()
        ended.record()
        self._running.append((started, ended, is_batch))
        return result

    def _took(self, seconds: float, is_batch: bool) -> None:
        self._seconds += seconds
        if is_batch and self._observe is not None:
            self._observe(seconds)

    def _run(
        self,
        compute: Callable[[Any], Result],
        inputs: Any,
        join: Callable[[Sequence[Result]], Result],
        may_try_again: bool,
    ) -> Result:
        try:
            return compute(inputs)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or (len(inputs) == 1 and not may_try_again):
                raise
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        # Outside the handler, because its traceback keeps the tensors of the failed attempt alive.
        gc.collect()
        release_freed_memory()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if may_try_again:
            return self._run(compute, inputs, join, may_try_again=False)
        self.halved += 1
        logger.warning("batch_halved", extra={"fields": {"inputs": len(inputs), "reason": reason}})
        middle = len(inputs) // 2
        return join([self._run(compute, part, join, False) for part in (inputs[:middle], inputs[middle:])])


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out. The CPU allocator raises a plain RuntimeError."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _CPU_SIGNS)
