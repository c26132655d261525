"""Keeps NaN and infinity out of candidate sets; `shared.model_folder` checks the weights."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.errors import ModelError


def check_scores(name: str, states: Tensor, scores: NDArray[np.float32]) -> None:
    """Raises ModelError when hidden states or scores are NaN or infinite.

    states: input of the head. scores: of the ranked entries; -inf is valid and marks the excluded ones.
    """
    if not bool(torch.isfinite(states).all()) or np.isnan(scores).any() or np.isposinf(scores).any():
        raise ModelError(
            f"--mlm {name} computed NaN or infinite scores on {states.device.type}, so its candidates would be wrong; "
            "try --dtype fp32; if that does not help, the weights or the hardware are faulty"
        )
