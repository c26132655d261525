"""A test puts this folder on PYTHONPATH: model calls fail like those of a GPU after a sticky error.

DEVICE_FAULT_AT=N: in each worker process, all calls from the Nth on fail. DEVICE_FAULT_TEXT: what the error says.
"""

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


# Only workers, because Ray's other processes would start too slowly with the import.
if "DEVICE_FAULT_AT" in os.environ and any("default_worker.py" in one for one in sys.orig_argv):
    _install()
