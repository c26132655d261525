"""File descriptors: every connection takes one, and a server that runs out can neither accept nor refuse."""

from __future__ import annotations

import contextlib
import logging
import resource

logger = logging.getLogger(__name__)

RESERVED_DESCRIPTORS = 256
"""Descriptors reserved for files, threads, and connections that are being refused."""


def usable_connections(wanted: int) -> int:
    """Raise the soft limit to the hard limit, and return how many of the `wanted` connections fit below it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = max(soft, wanted + RESERVED_DESCRIPTORS) if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and target > soft:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
            soft = target
    if soft == resource.RLIM_INFINITY or soft >= wanted + RESERVED_DESCRIPTORS:
        return wanted
    # If the limit is below twice the reserve, connections get half of it.
    usable = max(soft - RESERVED_DESCRIPTORS, soft // 2, 1)
    if usable >= wanted:
        return wanted
    fields = {"max_connections": usable, "wanted": wanted, "open_files_limit": soft}
    logger.warning("connections_capped: raise the limit of open files (ulimit -n)", extra={"fields": fields})
    return usable
