"""Runs model batches: times them, and recovers when memory runs out.

The guard first releases freed memory and retries the same batch, which gives identical results. If that fails too, it
halves the batch. On the CPU this also gives identical results; on a GPU other batch shapes may change the last digits
of a float, so the number of halved batches is recorded in the shard's commit (decision 0011).
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from shared.compute.memory import release_freed_memory

logger = logging.getLogger(__name__)

Input = TypeVar("Input")

_CPU_SIGNS = ("can't allocate memory", "not enough memory", "Cannot allocate memory", "std::bad_alloc")


class BatchGuard:
    """Runs batches and counts them in `batches`, `halved` and `seconds`.

    observe: if given, called with the seconds of each batch.
    """

    def __init__(self, observe: Callable[[float], None] | None = None) -> None:
        self.batches, self.halved, self.seconds = 0, 0, 0.0
        self._observe = observe

    def run(self, compute: Callable[[Sequence[Input]], Tensor], inputs: Sequence[Input]) -> Tensor:
        """`compute(inputs)`, in parts if memory requires it. Raises its error if even a single input is too large."""
        began = time.perf_counter()
        result = self._run(compute, inputs, may_try_again=True)
        seconds = time.perf_counter() - began
        self.batches, self.seconds = self.batches + 1, self.seconds + seconds
        if self._observe is not None:
            self._observe(seconds)
        return result

    def _run(
        self, compute: Callable[[Sequence[Input]], Tensor], inputs: Sequence[Input], may_try_again: bool
    ) -> Tensor:
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
            return self._run(compute, inputs, may_try_again=False)
        self.halved += 1
        logger.warning("batch_halved", extra={"fields": {"inputs": len(inputs), "reason": reason}})
        middle = len(inputs) // 2
        return torch.cat([self._run(compute, part, False) for part in (inputs[:middle], inputs[middle:])])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out. The CPU allocator reports that as a plain RuntimeError."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _CPU_SIGNS)
