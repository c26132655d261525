"""Decides whether a row or the process is to blame for an engine failure.

A device error (most are sticky on a GPU: every later call fails too) does not implicate the row being processed. So a
row is blamed only if it fails twice, and a known good row still passes after each failure. If the good row fails too,
the process is to blame: the driver replaces it and reassigns its shards.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import ray
import torch

from augment_service.engine.batch_guard import is_out_of_memory
from augment_service.job.failures import BrokenProcessError, BrokenVectorsError, is_rays_own
from shared.errors import ClusterError, ExpectedError, OverloadError

logger = logging.getLogger(__name__)

Row = TypeVar("Row")

ROWS_TO_JUDGE = 8
"""If all rows fail in a shard of at least this many, the run ends. In a smaller one, all rows may well be bad."""
_DEVICE_SIGNS = (
    "cuda error",
    "cuda driver error",
    "device-side assert",
    "cublas",
    "cusolver",
    "cusparse",
    "cudnn",
    "nccl error",
    "hip error",
    "illegal memory access",
    "uncorrectable ecc",
    "no kernel image",
)


class Judge(Generic[Row]):
    """Tries rows one by one to distinguish bad rows from a broken process.

    compute: processes rows, and raises what the engine raises. check: exercises every part of the engine on known good
    input; a good row alone is not enough, because not every row needs the masked LM.
    """

    def __init__(self, compute: Callable[[Sequence[Row]], object], check: Callable[[], object]) -> None:
        self._compute, self._check = compute, check

    def failures(self, rows: Sequence[Row], error: Exception) -> dict[int, str]:
        """After `error` on all rows together: index -> reason for the rows that fail twice alone.

        Raises BrokenProcessError when this process is to blame, ClusterError when every row fails and there are at
        least ROWS_TO_JUDGE, OverloadError when memory runs out even for one row, and errors for which
        `is_not_a_rows_fault` is true.
        """
        self._raise_unless_a_rows(error)
        failed: dict[int, str] = {}
        good: Row | None = None
        for index, row in enumerate(rows):
            reason = self._failure(row, good) and self._failure(row, good)
            if reason is None:
                good = row
            else:
                failed[index] = reason
        if len(failed) == len(rows) >= ROWS_TO_JUDGE:
            first = "; ".join(dict.fromkeys(list(failed.values())[:3]))
            raise ClusterError(f"the engine failed on all {len(rows)} rows of a shard: {first}")
        return failed

    def _failure(self, row: Row, good: Row | None) -> str | None:
        """Why a row fails alone in a working process, or None if it passes."""
        try:
            self._compute([row])
        except Exception as error:
            self._raise_unless_a_rows(error)
            self._check_process(good, error)
            return reason_of(error)
        return None

    def check_process(self, error: Exception) -> None:
        """After `error`: re-raise it if no row is at fault; BrokenProcessError if the process no longer works."""
        self._raise_unless_a_rows(error)
        self._check_process(None, error)

    def _check_process(self, good: Row | None, error: Exception) -> None:
        try:
            self._check()
            if good is not None:
                self._compute([good])
        except Exception as second:
            if is_not_a_rows_fault(second):
                raise
            raise BrokenProcessError(
                f"{reason_of(error)}; afterwards, a known good row failed too: {reason_of(second)}"
            ) from error

    def _raise_unless_a_rows(self, error: Exception) -> None:
        if is_not_a_rows_fault(error):
            raise error
        if is_device_error(error):
            raise BrokenProcessError(reason_of(error)) from error
        if is_out_of_memory(error):
            # All recovery was tried (see batch_guard); another actor may have more memory.
            raise OverloadError(f"out of memory even for one input: {reason_of(error)}") from error


def is_not_a_rows_fault(error: BaseException) -> bool:
    """Whether the error propagates unchanged: one for the user, Ray's own, or one about a process."""
    return isinstance(error, (ExpectedError, BrokenProcessError, BrokenVectorsError)) or is_rays_own(ray, error)


def is_device_error(error: BaseException) -> bool:
    """Whether a GPU or a GPU library failed, after which the process is unusable."""
    if isinstance(error, torch.OutOfMemoryError):
        return False
    if isinstance(error, torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _DEVICE_SIGNS)


def reason_of(error: BaseException) -> str:
    """The error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
