"""A test puts this folder on PYTHONPATH: model calls fail like those of a GPU after a sticky error, or vectors fail.

DEVICE_FAULT_AT=N: in each worker process, all calls from the Nth on fail. DEVICE_FAULT_TEXT: what the error says.
VECTOR_FAULTS=FILE: each line is a range of calls such as 5-6 or 9-; the process that takes the line off the file fails
in those calls, and a process that finds no line does not fail.
"""

import fcntl
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

_calls = 0


def _install() -> None:
    from augment_service.engine.batch_guard import BatchGuard

    run = BatchGuard.run

    def run_or_fail(self: BatchGuard, compute: Callable[[Sequence[Any]], Any], inputs: Sequence[Any]) -> Any:
        global _calls
        _calls += 1
        if _calls >= int(os.environ["DEVICE_FAULT_AT"]):
            raise RuntimeError(os.environ["DEVICE_FAULT_TEXT"])
        return run(self, compute, inputs)

    BatchGuard.run = run_or_fail  # type: ignore[method-assign]


def _install_vector_faults(path: str) -> None:
    from augment_service.engine.glove import GloveVectors

    rank = GloveVectors._rank
    calls = 0
    faults = range(0)

    def rank_or_fail(self: GloveVectors, words: Sequence[str], k: int) -> Any:
        nonlocal calls, faults
        calls += 1
        if calls == 1:
            with open(path, "r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                lines = file.read().split()
                file.seek(0)
                file.truncate()
                file.write("\n".join(lines[1:]))
            if lines:
                first, last = lines[0].split("-")
                faults = range(int(first), int(last or sys.maxsize) + 1)
        if calls in faults:
            raise OSError("a page of the vectors could not be read")
        return rank(self, words, k)

    GloveVectors._rank = rank_or_fail  # type: ignore[method-assign]


# Only workers, because Ray's other processes would start too slowly with the import.
if "DEVICE_FAULT_AT" in os.environ and any("default_worker.py" in one for one in sys.orig_argv):
    _install()
if "VECTOR_FAULTS" in os.environ and any("default_worker.py" in one for one in sys.orig_argv):
    _install_vector_faults(os.environ["VECTOR_FAULTS"])
