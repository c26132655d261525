"""NaN and infinity never reach a candidate set: neither from a damaged checkpoint nor from a computation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.errors import ModelError


def check_weights(name: str, model: Any) -> None:
    """Raises ModelError that names the first tensor of a model with a weight that is NaN or infinite."""
    for tensor_name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            bad = int((~torch.isfinite(value)).sum())
            raise ModelError(
                f"--mlm {name}: {bad} of {value.numel()} weights in {tensor_name} are NaN or infinite: the file is "
                "damaged, or its training diverged; use another checkpoint"
            )


def check_scores(name: str, states: Tensor, scores: NDArray[np.float32]) -> None:
    """Raises ModelError when a ranking cannot be trusted.

    states: what the head got. scores: of the ranked entries; -inf is normal there, it marks the excluded ones.
    """
    if not bool(torch.isfinite(states).all()) or np.isnan(scores).any() or np.isposinf(scores).any():
        raise ModelError(
            f"--mlm {name}: it computed scores that are NaN or infinite on {states.device.type}, so its candidates "
            "would be wrong: try --dtype fp32; if that does not help, the weights or the hardware are faulty"
        )
