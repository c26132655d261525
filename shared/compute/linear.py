"""Inference-only linear layers, with weights stored in oneDNN's own layout.

`functional.linear` on a CPU reorders a bf16 weight matrix on every call. oneDNN accepts a matrix that was reordered
once, and fuses GELU into the product (2 cores with AVX512-BF16, 768 rows, 768 -> 2304: 421 GFLOP/s compared with 351).
In fp32, PyTorch calls MKL, which reaches only half the speed on AMD processors (1 core, 1,024 rows, 768 -> 3072: 102
GFLOP/s compared with oneDNN's 233). The two operators used here are those that PyTorch's own compiler emits; plain
PyTorch is the fallback.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from shared.compute.hardware import has_bf16_kernels

_TYPICAL_ROWS = 1024


class Linear:
    """y = activation(x W^T + b) for x (T, in), in one precision; `activation` is None or a function of a tensor."""

    def __init__(self, parts: tuple[nn.Linear, ...], dtype: torch.dtype, activation: Any = None) -> None:
        # A single part is not copied, because the head shares its weights with the embeddings.
        self._weight = (torch.cat([p.weight.data for p in parts]) if parts[1:] else parts[0].weight.data).to(dtype)
        self._bias = (torch.cat([p.bias.data for p in parts]) if parts[1:] else parts[0].bias.data).to(dtype)
        self._activation = activation
        self._laid_out = _lay_out(self._weight)
        self._fused = "gelu" if activation is functional.gelu else "none"
        if self._laid_out is not None:
            self._weight = torch.empty(0)

    def __call__(self, states: Tensor, added: Tensor | None = None) -> Tensor:
        """(T, in) -> (T, out). added: (T, out), added to the product; not with an activation."""
        if added is not None:
            if self._laid_out is None:
                return functional.linear(states, self._weight, self._bias) + added
            total: Tensor = torch.ops.mkldnn._linear_pointwise.binary(states, added, self._laid_out, self._bias, "add")
            return total
        if self._laid_out is not None:
            # The "none" after "gelu" selects the exact form, by the error function.
            result: Tensor = torch.ops.mkldnn._linear_pointwise(
                states, self._laid_out, self._bias, self._fused, [], "none" if self._fused == "gelu" else ""
            )
            if self._fused == "gelu" or self._activation is None:
                return result
        else:
            result = functional.linear(states, self._weight, self._bias)
        return result if self._activation is None else self._activation(result)


def _lay_out(weight: Tensor) -> Tensor | None:
    """The weight in oneDNN's layout, or None if that is not useful or not available."""
    if weight.device.type != "cpu" or weight.dtype not in (torch.bfloat16, torch.float32):
        return None
    try:
        if weight.dtype == torch.bfloat16 and not has_bf16_kernels():
            return None
        laid_out: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _TYPICAL_ROWS)
        probe = weight.new_zeros(1, weight.shape[1])
        torch.ops.mkldnn._linear_pointwise(probe, laid_out, None, "none", [], "")
    except (AttributeError, RuntimeError, NotImplementedError):
        return None
    return laid_out
