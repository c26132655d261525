"""Whose fault is a failure of the engine: a row's, or the process's?

A device error (on a GPU most are sticky: every later call fails too) says nothing about the row that happened to be
next. So a row is accused only when it fails twice, and a row known to be good still passes after each of its failures.
Where that fails too, the process is to blame: the driver replaces it and hands its shards to others.
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
"""A shard of at least this many rows that all fail ends the run. In a smaller one, all rows may well be bad."""
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
    """Tries rows one by one and tells bad rows from a broken process.

    compute: processes rows, and raises what the engine raises. check: uses every part of the engine on something that
    certainly works. A good row alone proves too little, because not every row needs the masked LM.
    """

    def __init__(self, compute: Callable[[Sequence[Row]], object], check: Callable[[], object]) -> None:
        self._compute, self._check = compute, check

    def failures(self, rows: Sequence[Row], error: Exception) -> dict[int, str]:
        """After `error` on all rows together: the rows that fail twice alone, by index, each with its reason.

        Raises BrokenProcessError when this process is to blame, ClusterError when every row fails and there are at
        least ROWS_TO_JUDGE, OverloadError when memory runs out even for one row, and what `is_not_a_rows_fault` says.
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
            raise ClusterError(f"the engine failed on every one of {len(rows)} rows of a shard: {first}")
        return failed

    def _failure(self, row: Row, good: Row | None) -> str | None:
        """Why a row fails alone while the process works, or None if it passes."""
        try:
            self._compute([row])
        except Exception as error:
            self._raise_unless_a_rows(error)
            self._check_process(good, error)
            return reason_of(error)
        return None

    def check_process(self, error: Exception) -> None:
        """After `error`: raise it if it is not about the rows, and BrokenProcessError if nothing works any more."""
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
                f"{reason_of(error)}; after that, a good row failed too: {reason_of(second)}"
            ) from error

    def _raise_unless_a_rows(self, error: Exception) -> None:
        if is_not_a_rows_fault(error):
            raise error
        if is_device_error(error):
            raise BrokenProcessError(reason_of(error)) from error
        if is_out_of_memory(error):
            # Everything else was tried (see batch_guard); another actor may have more memory.
            raise OverloadError(f"out of memory even for one input: {reason_of(error)}") from error


def is_not_a_rows_fault(error: BaseException) -> bool:
    """Whether the error is passed on as it is: one for the user, Ray's own, or one about a process."""
    return isinstance(error, (ExpectedError, BrokenProcessError, BrokenVectorsError)) or is_rays_own(ray, error)


def is_device_error(error: BaseException) -> bool:
    """Whether a GPU or a library for it failed. Such a process cannot be used any further."""
    if isinstance(error, torch.OutOfMemoryError):
        return False
    if isinstance(error, torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _DEVICE_SIGNS)


def reason_of(error: BaseException) -> str:
    """The error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
