"""Attention of the trainer's models against PyTorch's own softmax."""

from __future__ import annotations

import pytest
import torch

from trainer.scores import attention_softmax


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [1, 2, 5, 15, 16, 17, 40, 64, 65])
def test_probabilities_and_gradients_are_those_of_softmax_at_every_length(length: int, dtype: torch.dtype) -> None:
    torch.manual_seed(length)
    scores = (3 * torch.randn(2, 3, length, length)).to(dtype).requires_grad_()
    is_hidden = torch.arange(length) >= torch.tensor([length, max(1, length - 2)])[:, None]
    additive = torch.zeros(2, length, dtype=dtype).masked_fill(is_hidden, torch.finfo(dtype).min)[:, None, None]
    tolerance = 1e-6 if dtype == torch.float32 else 4e-3
    wanted = (scores.double() + additive.double()).softmax(-1)
    upstream = torch.randn_like(wanted)
    wanted_gradient = torch.autograd.grad(wanted, scores, upstream)[0]
    probabilities = attention_softmax(scores, additive)
    gradient = torch.autograd.grad(probabilities, scores, upstream.to(dtype))[0]
    assert probabilities.dtype == gradient.dtype == dtype
    assert torch.allclose(probabilities.double(), wanted, atol=tolerance)
    assert torch.allclose(gradient.double(), wanted_gradient.double(), atol=4 * tolerance)
    assert (probabilities[1, ..., length - 2 :] == 0).all() or length <= 2


@pytest.mark.parametrize("length", [3, 20])
def test_scores_need_no_mask(length: int) -> None:
    scores = torch.randn(2, 3, length, length)
    assert torch.allclose(attention_softmax(scores, None), scores.softmax(-1), atol=1e-6)
