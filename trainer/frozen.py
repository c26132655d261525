"""Inference-only encoders: on a CPU, their matrix products use weights in oneDNN's own layout.

GELU and the residual addition are fused into the product, which saves a pass over the activations each.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as functional
from torch import Tensor, nn

from shared.compute.linear import Linear


def freeze(encoder: Any) -> None:
    """Convert the weights of a `BertModel`'s layers in place; has no effect on a GPU.

    Its device and precision are fixed from then on.
    """
    if encoder.device.type != "cpu":
        return
    activation = functional.gelu if encoder.config.hidden_act == "gelu" else None
    for layer in encoder.encoder.layer:
        attention = layer.attention
        for name in ("query", "key", "value"):
            setattr(attention.self, name, _Product(getattr(attention.self, name)))
        attention.output = _Output(attention.output)
        layer.intermediate = _Product(layer.intermediate.dense, activation or layer.intermediate.intermediate_act_fn)
        layer.output = _Output(layer.output)


class _Product(nn.Module):
    """Replaces a linear layer and its activation."""

    def __init__(self, dense: nn.Linear, activation: Any = None) -> None:
        super().__init__()
        self._linear = Linear((dense,), dense.weight.dtype, activation)

    def forward(self, states: Tensor) -> Tensor:
        """(B, L, in) -> (B, L, out)."""
        return self._linear(states)


class _Output(nn.Module):
    """Replaces a `BertSelfOutput` or `BertOutput`: linear layer, addition and norm, without dropout."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self._linear = Linear((output.dense,), output.dense.weight.dtype)
        self._norm = output.LayerNorm

    def forward(self, states: Tensor, inputs: Tensor) -> Tensor:
        """(B, L, in), (B, L, d) -> (B, L, d)."""
        result: Tensor = self._norm(self._linear(states, inputs))
        return result
