"""A test puts this folder on PYTHONPATH: a row whose text contains POISON kills its process, like a native crash."""

import os
import signal
from typing import Any

import shared.sampling

POISON = "poisonous"
_draw = shared.sampling.draw_samples


def _draw_or_die(found: Any, *arguments: Any) -> Any:
    if any(POISON in row.text_a.text for row in found):
        os.kill(os.getpid(), signal.SIGSEGV)
    return _draw(found, *arguments)


shared.sampling.draw_samples = _draw_or_die
