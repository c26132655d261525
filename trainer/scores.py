"""Embeddings, hidden states and pre-softmax attention scores of a BERT, at the requested layers only.

The modules of transformers are called one after the other; scores are collected through its attention interface (a
function registered under our own name), so the library is not patched. Layers without requested scores run the fused
kernel where it is faster. Limitation: BERT only.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor
from transformers import AttentionInterface

from shared.compute.attention import products_are_faster
from trainer.relations import Vectors

ATTENTION = "tinybert_scores"
SHORT = 64
"""Up to this length, a CPU computes softmax in fp32: the kernel for bf16 is 2-4 times slower there."""
VECTOR = 16
"""fp32 numbers in a vector of AVX-512. PyTorch computes softmax of shorter rows element by element: 6 times slower."""
PRODUCTS = 32
"""Up to this length, separate matrix products are faster than the fused kernel in fp32, too."""


@dataclass(frozen=True, slots=True)
class EncoderStates:
    """hidden_states[m]: (B, L, d), output of layer m; 0 is the embedding output.

    attention_scores[m]: (B, H, L, L), before softmax and without the mask, of each requested layer m in 1..N.
    attention_vectors[m]: queries, keys and values of each requested layer m in 1..N.
    """

    hidden_states: list[Tensor]
    attention_scores: dict[int, Tensor]
    attention_vectors: dict[int, Vectors]

    @property
    def last(self) -> Tensor:
        """Output of the last layer that ran, (B, L, d)."""
        return self.hidden_states[-1]


def attention_with_scores(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    score_sink: dict[int, Tensor | None] | None = None,
    vector_sink: dict[int, Vectors | None] | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """An attention function for transformers' interface; fills the entries of both sinks, keyed by layer from 0.

    query, key, value: (B, H, L, head size). Returns (B, L, H, head size).
    """
    if vector_sink is not None and module.layer_idx in vector_sink:
        vector_sink[module.layer_idx] = (query, key, value)
    is_wanted = score_sink is not None and module.layer_idx in score_sink
    if not is_wanted and not _are_products_faster(query):
        output = functional.scaled_dot_product_attention(
            query, key, value, attention_mask, dropout_p=dropout, scale=scaling
        )
        return output.transpose(1, 2), None
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling  # (B, H, L, L)
    if score_sink is not None and is_wanted:
        score_sink[module.layer_idx] = scores
    probabilities = functional.dropout(attention_softmax(scores, attention_mask), dropout, training=dropout > 0)
    return torch.matmul(probabilities, value).transpose(1, 2), None


def attention_softmax(scores: Tensor, additive: Tensor | None) -> Tensor:
    """softmax(scores + additive) over the last dimension, in the precision of the scores.

    scores: (B, H, L, L); additive: (B, 1, 1, L) or None.
    """
    length = scores.shape[-1]
    if scores.device.type != "cpu" or length > SHORT:
        return (scores if additive is None else scores + additive).softmax(dim=-1)
    wide = scores.float()
    if additive is not None:
        wide = wide + additive.float()
    if length < VECTOR:
        wide = functional.pad(wide, (0, VECTOR - length), value=-math.inf)
    return wide.softmax(dim=-1)[..., :length].to(scores.dtype)


AttentionInterface.register(ATTENTION, attention_with_scores)


def encode(
    encoder: Any,
    input_ids: Tensor,
    token_type_ids: Tensor,
    mask: Tensor | None,
    score_layers: Collection[int] = (),
    last_layer: int | None = None,
    vector_layers: Collection[int] = (),
) -> EncoderStates:
    """Run a `BertModel` whose attention implementation is ATTENTION.

    input_ids, token_type_ids: (B, L) int64; mask: (B, L) bool, True on real tokens, None when nothing is padded.
    score_layers: layers in 1..N whose scores to return; last_layer: stop after this one.
    """
    states: Tensor = encoder.embeddings(input_ids=input_ids, token_type_ids=token_type_ids)  # (B, L, d)
    additive = _additive(mask, states)
    sink: dict[int, Tensor | None] = {layer - 1: None for layer in score_layers}
    vectors: dict[int, Vectors | None] = {layer - 1: None for layer in vector_layers}
    hidden = [states]
    for layer in encoder.encoder.layer[:last_layer]:
        states = layer(states, additive, score_sink=sink, vector_sink=vectors)
        hidden.append(states)
    return EncoderStates(
        hidden,
        {layer + 1: scores for layer, scores in sink.items() if scores is not None},
        {layer + 1: found for layer, found in vectors.items() if found is not None},
    )


def classify(model: Any, input_ids: Tensor, token_type_ids: Tensor, mask: Tensor | None) -> Tensor:
    """(B, C) logits of a `BertForSequenceClassification`, in the classifier's precision. Inputs: as for `encode`.

    The classifier reads the first token alone, so the last layer computes that token alone, from the keys and values of
    all.
    """
    last = len(model.bert.encoder.layer) - 1
    states = encode(model.bert, input_ids, token_type_ids, mask, last_layer=last).last
    first = _first_token(model.bert.encoder.layer[last], states, _additive(mask, states))
    logits: Tensor = model.classifier(model.dropout(model.bert.pooler(first.to(model.classifier.weight.dtype))))
    return logits


def _first_token(layer: Any, states: Tensor, additive: Tensor | None) -> Tensor:
    """(B, 1, d): output of a `BertLayer` for the first token. states: (B, L, d)."""
    attention, first = layer.attention.self, states[:, :1]
    query, key, value = (
        linear(of).unflatten(-1, (-1, attention.attention_head_size)).transpose(1, 2)
        for linear, of in ((attention.query, first), (attention.key, states), (attention.value, states))
    )
    dropout = attention.dropout.p if attention.training else 0.0
    mixed, _ = attention_with_scores(attention, query, key, value, additive, attention.scaling, dropout)
    result: Tensor = layer.feed_forward_chunk(layer.attention.output(mixed.flatten(2), first))
    return result


def _are_products_faster(query: Tensor) -> bool:
    is_short = query.device.type == "cpu" and query.dtype == torch.float32 and query.shape[2] <= PRODUCTS
    return is_short or products_are_faster(query)


def _additive(mask: Tensor | None, states: Tensor) -> Tensor | None:
    """(B, 1, 1, L): 0 for real tokens, the smallest number for padding, in the precision of the scores."""
    if mask is None:
        return None
    device = states.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states.dtype
    additive = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return additive.masked_fill(~mask, torch.finfo(dtype).min)[:, None, None, :]
