"""The forward pass of BERT-family encoders over packed sequences, with the last layer only at the wanted positions.

The tokens of a batch are packed into one (T, H) matrix without padding. Attention runs per group of equal length. The
last layer computes keys and values for all tokens but everything else only at the wanted positions.
Covers BERT, RoBERTa, XLM-R, ELECTRA and DistilBERT; other architectures use their own forward pass.

Legend: T tokens of the batch, P wanted positions, H hidden size, A heads, D head size, B sequences of one length L.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from augment_service.engine.varlen import Attention, varlen_attention
from shared.compute.attention import products_are_faster
from shared.compute.linear import Linear
from shared.positions import position_offset

ARITHMETIC = 2
"""Version of the arithmetic, incremented whenever the last digits of results change, so that a job started by another
version is refused rather than continued with different digits."""
_BLOCK = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBatch:
    """Several concatenated sequences.

    ids, segments, places: (T,) int64, token id, segment, and index in its sequence. lengths: one per sequence,
    ascending. wanted: (P,) int64, ascending, rows of the packed matrix whose last hidden states are requested.
    """

    ids: Tensor
    segments: Tensor
    places: Tensor
    lengths: tuple[int, ...]
    wanted: Tensor


@dataclass(frozen=True, slots=True)
class _Norm:
    """A layer norm with weights in the precision of its input."""

    shape: tuple[int, ...]
    weight: Tensor
    bias: Tensor
    epsilon: float

    @classmethod
    def of(cls, norm: nn.LayerNorm, dtype: torch.dtype) -> _Norm:
        return cls(tuple(norm.normalized_shape), norm.weight.data.to(dtype), norm.bias.data.to(dtype), norm.eps)

    def __call__(self, states: Tensor) -> Tensor:
        return functional.layer_norm(states, self.shape, self.weight, self.bias, self.epsilon)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """Weights of one post-norm transformer layer. Query, key and value are fused; `up` includes the activation."""

    qkv: Linear
    output: Linear
    attention_norm: _Norm
    up: Linear
    down: Linear
    output_norm: _Norm


class PackedEncoder:
    """A BERT-family encoder with the weights of a transformers model."""

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        base = model.base_model
        kind = model.config.model_type
        self._dtype = dtype
        self._num_heads = getattr(model.config, "num_attention_heads", None) or model.config.n_heads
        embeddings = base.embeddings
        self._words = embeddings.word_embeddings.weight.data
        self._positions = embeddings.position_embeddings.weight.data
        segment_table = getattr(embeddings, "token_type_embeddings", None)
        self._segments = segment_table.weight.data if segment_table is not None else None
        self._embedding_norm = _Norm.of(embeddings.LayerNorm, self._words.dtype)
        self._place_shift = position_offset(model)
        projection = getattr(base, "embeddings_project", None)
        self._projection = Linear((projection,), dtype) if projection is not None else None
        activation = _activation(getattr(model.config, "hidden_act", None) or model.config.activation)
        if kind == "distilbert":
            self._layers = [_distilbert_layer(layer, dtype, activation) for layer in base.transformer.layer]
        else:
            self._layers = [_bert_layer(layer, dtype, activation) for layer in base.encoder.layer]
        self._varlen: Attention | None = None
        if self._words.is_cuda:
            size = getattr(model.config, "hidden_size", None) or model.config.dim
            self._varlen = varlen_attention(self._attention_by_length, self._num_heads, size, dtype)

    def __call__(self, batch: PackedBatch) -> Tensor:
        """(P, H) last hidden states at the wanted rows."""
        states = self._embed(batch)  # (T, H)
        for layer in self._layers[:-1]:
            states = self._layer(layer, states, batch.lengths, None)
        return self._layer(self._layers[-1], states, batch.lengths, batch.wanted)

    def _embed(self, batch: PackedBatch) -> Tensor:
        embedded = functional.embedding(batch.ids, self._words)
        embedded = embedded + functional.embedding(batch.places + self._place_shift, self._positions)
        if self._segments is not None:
            embedded = embedded + functional.embedding(batch.segments, self._segments)
        states = self._embedding_norm(embedded).to(self._dtype)
        return self._projection(states) if self._projection else states

    def _layer(self, layer: _Layer, states: Tensor, lengths: tuple[int, ...], wanted: Tensor | None) -> Tensor:
        context = self._attention(layer.qkv(states), lengths)
        if wanted is not None:
            context, states = context.index_select(0, wanted), states.index_select(0, wanted)
        attended = layer.attention_norm(layer.output(context) + states)
        return layer.output_norm(layer.down(layer.up(attended)) + attended)

    def _attention(self, qkv: Tensor, lengths: tuple[int, ...]) -> Tensor:
        return (self._varlen or self._attention_by_length)(qkv, lengths)

    def _attention_by_length(self, qkv: Tensor, lengths: tuple[int, ...]) -> Tensor:
        size = qkv.shape[1] // 3
        parts, start = [], 0
        for length, count in _runs(lengths):
            rows = qkv[start : start + length * count]
            start += length * count
            split = rows.view(count, length, 3, self._num_heads, size // self._num_heads).permute(2, 0, 3, 1, 4)
            mixed = _attend(split[0], split[1], split[2])  # (B, A, L, D)
            parts.append(mixed.transpose(1, 2).reshape(count * length, size))
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def is_supported(model: Any) -> bool:
    """Whether PackedEncoder computes the same as this model's own forward pass."""
    config = model.config
    if config.model_type == "distilbert":
        return not getattr(config, "sinusoidal_pos_embds", False)
    kinds = ("bert", "roberta", "xlm-roberta", "electra")
    return config.model_type in kinds and not getattr(config, "is_decoder", False)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention without a mask over (B, A, L, D)."""
    if not products_are_faster(query):
        return functional.scaled_dot_product_attention(query, key, value)
    parts, start, count = [], 0, query.shape[0]
    while start < count:
        # Use few distinct block sizes, because oneDNN compiles and caches a kernel for each.
        size = min(_BLOCK, 1 << ((count - start).bit_length() - 1))
        block = slice(start, start + size)
        scores = torch.matmul(query[block], key[block].transpose(2, 3)) * query.shape[3] ** -0.5  # (size, A, L, L)
        parts.append(torch.matmul(scores.softmax(dim=-1), value[block]))
        start += size
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _runs(lengths: tuple[int, ...]) -> list[tuple[int, int]]:
    """(length, number of consecutive sequences of that length)."""
    runs: list[tuple[int, int]] = []
    for length in lengths:
        if runs and runs[-1][0] == length:
            runs[-1] = (length, runs[-1][1] + 1)
        else:
            runs.append((length, 1))
    return runs


def _bert_layer(layer: Any, dtype: torch.dtype, activation: Any) -> _Layer:
    attention = layer.attention.self
    return _Layer(
        qkv=Linear((attention.query, attention.key, attention.value), dtype),
        output=Linear((layer.attention.output.dense,), dtype),
        attention_norm=_Norm.of(layer.attention.output.LayerNorm, dtype),
        up=Linear((layer.intermediate.dense,), dtype, activation),
        down=Linear((layer.output.dense,), dtype),
        output_norm=_Norm.of(layer.output.LayerNorm, dtype),
    )


def _distilbert_layer(layer: Any, dtype: torch.dtype, activation: Any) -> _Layer:
    attention = layer.attention
    return _Layer(
        qkv=Linear((attention.q_lin, attention.k_lin, attention.v_lin), dtype),
        output=Linear((attention.out_lin,), dtype),
        attention_norm=_Norm.of(layer.sa_layer_norm, dtype),
        up=Linear((layer.ffn.lin1,), dtype, activation),
        down=Linear((layer.ffn.lin2,), dtype),
        output_norm=_Norm.of(layer.output_layer_norm, dtype),
    )


def _activation(name: str) -> Any:
    from transformers.activations import ACT2FN

    return functional.gelu if name == "gelu" else ACT2FN[name]
