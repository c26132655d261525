"""Attention over all sequences of a packed batch in one call, if PyTorch and the GPU have a kernel for it.

Without it, attention takes one call per layer and group of equal length, which is launch-bound on a fast GPU.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

_TRIED_LENGTHS = (3, 5, 5, 17)
_TOLERANCE = 0.03
"""Largest accepted difference between two kernels in bf16 on random input; a wrong result differs by about 1."""

Attention = Callable[[Tensor, tuple[int, ...]], Tensor]
"""(T, 3H) queries, keys and values of packed sequences, and the sequences' lengths -> (T, H)."""


def varlen_attention(plain: Attention, num_heads: int, size: int, dtype: torch.dtype) -> Attention | None:
    """One-call attention on the current GPU, or None if it is missing or its results differ from `plain`."""
    if dtype not in (torch.bfloat16, torch.float16):
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn

        attention = packed_attention(varlen_attn, num_heads)
        generator = torch.Generator("cuda").manual_seed(0)
        tried = torch.randn(sum(_TRIED_LENGTHS), 3 * size, generator=generator, device="cuda").to(dtype)
        with torch.inference_mode():
            difference = float((attention(tried, _TRIED_LENGTHS) - plain(tried, _TRIED_LENGTHS)).abs().max())
    except (ImportError, RuntimeError, TypeError, NotImplementedError) as error:
        logger.info("no_varlen_attention", extra={"fields": {"reason": str(error).splitlines()[0][:200]}})
        return None
    if not difference < _TOLERANCE:
        logger.warning("no_varlen_attention", extra={"fields": {"reason": f"its results are off by {difference:.3f}"}})
        return None
    return attention


def packed_attention(kernel: Callable[..., Any], num_heads: int) -> Attention:
    """Attention through a kernel with the signature of torch's `varlen_attn`."""
    known: tuple[tuple[int, ...], Tensor] | None = None

    def attention(qkv: Tensor, lengths: tuple[int, ...]) -> Tensor:
        nonlocal known
        if known is None or known[0] is not lengths:
            # Cached: all layers of a batch pass the same tuple.
            bounds = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
            known = lengths, bounds.to(qkv.device)
        longest = max(lengths)
        heads = qkv.view(len(qkv), 3, num_heads, -1)  # (T, 3, A, D)
        query, key, value = (part.contiguous() for part in heads.unbind(1))
        mixed: Tensor = kernel(query, key, value, known[1], known[1], longest, longest)
        return mixed.reshape(len(qkv), -1)

    return attention
