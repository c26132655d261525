"""Keeps freed memory in the process.

Tensors of many megabytes are allocated and freed at every step. If each is returned to the kernel, the next allocation
costs a page fault per 4 KiB, which was a quarter of a training step on two cores.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
TOP_PAD_BYTES = 64 << 20


def keep_freed_memory() -> bool:
    """Make glibc take large blocks from its heap and keep them; returns whether that worked (False without glibc)."""
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
    """Return the memory held by glibc to the kernel, after memory has run out."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
