"""Floating-point operations of a masked LM for one input, computed from the shapes of its layers.

Only matrix products are counted, not embeddings, norms, activations and softmax.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelCost:
    """FLOPs: `linear` per token in the encoder's linear layers, `attention` per pair of tokens, `head` per answer."""

    layers: int
    linear: float
    attention: float
    head: float

    def encoder(self, length: int) -> float:
        """FLOPs of the encoder for one input of `length` tokens."""
        return self.linear * length + self.attention * length * length


def model_cost(model: Any, last_layer_is_cut: bool) -> ModelCost:
    """Cost of a transformers masked LM.

    last_layer_is_cut: whether the last layer runs only at the answers, as in PackedEncoder.
    """
    from torch import nn

    def linear_layers(module: Any) -> dict[int, Any]:
        named = module.named_modules()
        return {id(one): one for name, one in named if isinstance(one, nn.Linear) and "pooler" not in name}

    config, base = model.config, model.base_model
    size = getattr(config, "hidden_size", None) or config.dim
    layers = getattr(config, "num_hidden_layers", None) or config.n_layers
    in_encoder, in_all = linear_layers(base), linear_layers(model)
    encoder = sum(one.weight.numel() for one in in_encoder.values())
    head = sum(one.weight.numel() for key, one in in_all.items() if key not in in_encoder)
    if last_layer_is_cut:
        # Query, key and value of every token; the rest only at the answers.
        encoder -= encoder / layers - 3 * size * size
    return ModelCost(layers, 2.0 * encoder, 4.0 * size * layers, 2.0 * head)
