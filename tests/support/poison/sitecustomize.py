"""A test puts this folder on PYTHONPATH: a row whose text contains POISON kills its process, like a native crash."""

import os
import signal
from collections.abc import Sequence

import shared.sampling
from shared.candidates import Ints, RowCandidates, Samples
from shared.choices import ChoiceTable
from shared.params import AugmentParams

POISON = "poisonous"
_draw = shared.sampling.draw_samples


def _draw_or_die(
    rows: Sequence[RowCandidates], params: AugmentParams, n_a: Ints | None = None, table: ChoiceTable | None = None
) -> Samples:
    if any(POISON in row.text_a.text for row in rows):
        os.kill(os.getpid(), signal.SIGSEGV)
    return _draw(rows, params, n_a, table)


shared.sampling.draw_samples = _draw_or_die
