"""Checks that logits are finite: NaN and infinity are model errors, wherever the logits are used."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shared.errors import ModelError


def check_answers(logits: NDArray[np.float32], texts: Sequence[str], model: str) -> None:
    """Raises ModelError naming the first text with a NaN or infinite logit.

    logits: (rows, C); texts: one per row; model: the option that named it, and its value.
    """
    bad = np.flatnonzero(~np.isfinite(logits).all(-1))
    if len(bad):
        raise ModelError(
            f"{model} returns logits that are not finite, for example for {texts[bad[0]][:60]!r}: its weights are "
            "damaged, or it needs --dtype fp32"
        )
