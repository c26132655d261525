"""Put on PYTHONPATH by a test: a row whose text holds this word kills its process, as a crash in native code would."""

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
