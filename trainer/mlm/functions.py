"""The two products that dominate a step of `trainer mlm`, with gradients for the trained weights only.

Autograd would treat a low-rank change as a separate path: two thin products forward, their casts, a sum, and the same
again backward; and it would keep four copies of the logits. Both gradients are written by hand instead.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

ROWS_AT_ONCE = 32
"""Rows of logits whose softmax is computed together, so that in fp32 they fit into the processor's cache."""


def low_rank_linear(x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """x (W + scale b a)^T + bias, in the precision of autocast.

    x: (..., in); weight: (out, in) and bias: (out,), both frozen; a: (r, in) and b: (out, r), trained.
    Returns (..., out).
    """
    result: Tensor = _LowRankLinear.apply(x, weight, bias, a, b, scale)  # type: ignore[no-untyped-call]
    return result


def tied_cross_entropy(
    states: Tensor, table: Tensor, bias: Tensor, a: Tensor | None, b: Tensor | None, labels: Tensor
) -> Tensor:
    """Mean cross-entropy of the logits states (table + a b)^T + bias, with products in the precision of autocast.

    states: (P, hidden); table: (V, hidden), frozen; bias: (V,); a: (V, r) and b: (r, hidden), or both None; labels:
    (P,) int64, negative ones are ignored. V: size of the vocabulary. Returns an fp32 scalar.
    """
    result: Tensor = _TiedCrossEntropy.apply(states, table, bias, a, b, labels)  # type: ignore[no-untyped-call]
    return result


def _precision(x: Tensor) -> torch.dtype:
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


class _LowRankLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        dtype = _precision(x)
        with torch.autocast(x.device.type, enabled=False):
            # Added in fp32, so that changes smaller than the precision of a bf16 weight still accumulate.
            merged = torch.addmm(weight, b, a, alpha=scale).to(dtype)
            low_x, low_a, low_b = x.to(dtype), a.to(dtype), b.to(dtype)
            y = functional.linear(low_x, merged, None if bias is None else bias.to(dtype))
        ctx.save_for_backward(low_x, merged, low_a, low_b)
        ctx.scale, ctx.x_dtype = scale, x.dtype
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, merged, a, b = ctx.saved_tensors
        shape = x.shape
        flat, x = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, shape[-1])
        grad_x = (flat @ merged).reshape(shape).to(ctx.x_dtype) if ctx.needs_input_grad[0] else None
        grad_a = ((flat @ b).t() @ x).float() * ctx.scale
        grad_b = (flat.t() @ (x @ a.t())).float() * ctx.scale
        return grad_x, None, None, grad_a, grad_b, None


class _TiedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, table: Tensor, bias: Tensor, a: Tensor | None, b: Tensor | None, labels: Tensor
    ) -> Tensor:
        dtype = _precision(states)
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        grad_bias = torch.zeros_like(bias, dtype=torch.float32)
        with torch.autocast(states.device.type, enabled=False):
            low_states, low_table = states.to(dtype), table.to(dtype)
            logits = functional.linear(low_states, low_table, bias.to(dtype))
            thin = low_a = low_b = None
            if a is not None and b is not None:
                low_a, low_b = a.to(dtype), b.to(dtype)
                thin = low_states @ low_b.t()
                logits.addmm_(thin, low_a.t())
            counts = (labels >= 0).to(torch.float32)[:, None]
            share = 1.0 / counts.sum()
            for start in range(0, len(labels), ROWS_AT_ONCE):
                part = logits[start : start + ROWS_AT_ONCE]
                asked = labels[start : start + ROWS_AT_ONCE, None].clamp(min=0)
                weights = counts[start : start + ROWS_AT_ONCE] * share
                scores = part.float()
                log_sum = scores.logsumexp(1, keepdim=True)
                total += (weights * (log_sum - scores.gather(1, asked))).sum()
                # From here on `logits` holds the gradient of the loss: softmax, minus 1 at the label, times the weight.
                gradient = scores.sub_(log_sum).exp_()
                gradient.scatter_add_(1, asked, gradient.new_full(asked.shape, -1.0))
                grad_bias += gradient.mul_(weights).sum(0)
                part.copy_(gradient)
        ctx.save_for_backward(logits, low_states, low_table, thin, low_a, low_b, grad_bias)
        ctx.states_dtype = states.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradient, states, table, thin, a, b, grad_bias = ctx.saved_tensors
        grad_states = gradient @ table
        grad_a = grad_b = None
        if a is not None:
            thin_gradient = gradient @ a
            grad_states.addmm_(thin_gradient, b)
            grad_a = (gradient.t() @ thin).float() * grad
            grad_b = (thin_gradient.t() @ states).float() * grad
        return grad_states.to(ctx.states_dtype) * grad, None, grad_bias * grad, grad_a, grad_b, None
