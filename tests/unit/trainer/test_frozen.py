"""A teacher with laid-out weights answers as it did before."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from trainer.frozen import freeze
from trainer.scores import ATTENTION, classify, encode


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_frozen_teacher_gives_the_same_states_scores_and_logits(activation: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=16,
        hidden_act=activation,
        attn_implementation=ATTENTION,
    )
    model = BertForSequenceClassification(config).eval().to(dtype)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    ids = torch.randint(1, 50, (3, 9))
    mask = torch.arange(9) < torch.tensor([9, 4, 6])[:, None]
    inputs = ids, torch.zeros_like(ids), mask
    with torch.no_grad():
        states, logits = encode(model.bert, *inputs, (1, 3)), classify(model, *inputs)
        freeze(model.bert)
        frozen, frozen_logits = encode(model.bert, *inputs, (1, 3)), classify(model, *inputs)
    tolerance = 1e-5 if dtype == torch.float32 else 0.06
    assert "query" not in " ".join(name for name, _ in model.named_parameters())
    for wanted, found in zip(states.hidden_states, frozen.hidden_states, strict=True):
        assert torch.allclose(found.float(), wanted.float(), atol=tolerance, rtol=tolerance)
    for layer, scores in states.attention_scores.items():
        assert torch.allclose(frozen.attention_scores[layer].float(), scores.float(), atol=tolerance, rtol=tolerance)
    assert torch.allclose(frozen_logits.float(), logits.float(), atol=tolerance, rtol=tolerance)
