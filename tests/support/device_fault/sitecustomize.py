"""A test puts this folder on PYTHONPATH: model calls fail like those of a GPU after a sticky error.

DEVICE_FAULT_AT=N: in each process, all calls from the Nth on fail. DEVICE_FAULT_TEXT: what the error says.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from augment_service.engine.batch_guard import BatchGuard

_run = BatchGuard.run
_calls = 0


def _run_or_fail(self: BatchGuard, compute: Callable[[Sequence[Any]], Tensor], inputs: Sequence[Any]) -> Tensor:
    global _calls
    _calls += 1
    if _calls >= int(os.environ["DEVICE_FAULT_AT"]):
        raise RuntimeError(os.environ["DEVICE_FAULT_TEXT"])
    return _run(self, compute, inputs)


if "DEVICE_FAULT_AT" in os.environ:
    BatchGuard.run = _run_or_fail  # type: ignore[method-assign]
