"""Keeping freed memory: tensors of many megabytes come and go at every step, and handing each back to the kernel costs
a page fault per 4 KiB when it is asked for again. On two cores that was a quarter of a training step.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
TOP_PAD_BYTES = 64 << 20


def keep_freed_memory() -> bool:
    """Tell glibc to take large blocks from its heap and keep them; returns whether it listened (False elsewhere)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    wanted = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, TOP_PAD_BYTES))
    results = [mallopt(name, value) for name, value in wanted]
    return all(result == 1 for result in results)


def release_freed_memory() -> None:
    """Give back to the kernel what glibc keeps, when memory has run out."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
