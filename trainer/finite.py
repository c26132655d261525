"""Answers that are numbers: NaN and infinity are errors of a model, wherever its answers are used."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shared.errors import ModelError


def check_answers(logits: NDArray[np.float32], texts: Sequence[str], model: str) -> None:
    """Raises ModelError that names the first text whose answer is NaN or infinite.

    logits: (rows, C); texts: one of each row; model: the option that named it, and its value.
    """
    bad = np.flatnonzero(~np.isfinite(logits).all(-1))
    if len(bad):
        raise ModelError(
            f"{model} gives answers that are not finite, such as for {texts[bad[0]][:60]!r}: its weights are damaged, "
            "or --dtype fp32 is needed"
        )
