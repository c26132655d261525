"""Attention over packed sequences in one call, with a kernel for the CPU that has the signature of PyTorch's."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as functional
from torch import Tensor

from augment_service.engine.varlen import packed_attention, varlen_attention

HEADS, SIZE = 4, 32


def kernel(query: Tensor, key: Tensor, value: Tensor, starts: Tensor, _: Tensor, longest: int, __: int) -> Tensor:
    """One sequence after another: (T, A, D) -> (T, A, D)."""
    assert starts.dtype == torch.int32
    assert int(starts.diff().max()) == longest
    parts = []
    for first, last in itertools.pairwise(starts.tolist()):
        own, keys, values = (part[first:last].transpose(0, 1) for part in (query, key, value))
        parts.append(functional.scaled_dot_product_attention(own, keys, values).transpose(0, 1))
    return torch.cat(parts)


def test_every_sequence_attends_to_itself_alone() -> None:
    attention = packed_attention(kernel, HEADS)
    for lengths in ((3, 3, 7), (1,), (2, 9)):
        qkv = torch.randn(sum(lengths), 3 * SIZE)
        found = attention(qkv, lengths)
        first = 0
        for length in lengths:
            own = qkv[first : first + length].view(length, 3, HEADS, SIZE // HEADS).permute(1, 2, 0, 3)
            expected = functional.scaled_dot_product_attention(own[0], own[1], own[2]).transpose(0, 1)
            assert torch.allclose(found[first : first + length], expected.reshape(length, SIZE), atol=1e-6)
            first += length


def test_it_is_not_used_where_it_is_missing() -> None:
    assert varlen_attention(lambda qkv, _: qkv, HEADS, SIZE, torch.float32) is None
    if not torch.cuda.is_available():
        assert varlen_attention(lambda qkv, _: qkv, HEADS, SIZE, torch.bfloat16) is None
