"""Memory of long-lived processes: freed blocks stay in them, garbage collection skips what never becomes garbage.

Tensors of many megabytes are allocated and freed at every step. If each is returned to the kernel, the next allocation
costs a page fault per 4 KiB, which was a quarter of a training step on two cores.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
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


def exempt_from_collection() -> None:
    """Leave all objects that exist now out of later garbage collections. Call it once everything is loaded.

    A full collection visits every object and stops all threads. The 430,000 objects of the libraries took it a quarter
    of a second, in which a server answers nobody. Objects without references are freed as before.
    """
    gc.collect()
    gc.freeze()
