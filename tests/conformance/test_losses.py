"""Equations 7-11 compared with a plain implementation of the paper and hand-computed numbers, and by gradcheck."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from shared.errors import UsageError
from tests.support.distillation import save_teacher
from trainer.data.batches import Batch
from trainer.distill import IntermediateDistillation, PredictionDistillation
from trainer.losses import attention_loss, embedding_loss, hidden_loss, prediction_loss, regression_loss
from trainer.models import load_classifier
from trainer.scores import classify, encode
from trainer.student import Projections

LENGTHS = (7, 4, 5)


def gradient_of(weight: Tensor) -> Tensor:
    assert weight.grad is not None
    return weight.grad


def random_batch(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]
    ids = torch.randint(5, 60, mask.shape, generator=generator).masked_fill(~mask, 0)
    types = torch.zeros_like(ids)
    types[0, 4:] = 1
    return Batch(
        input_ids=ids,
        token_type_ids=types,
        mask=mask,
        labels=torch.zeros(3),
        keys=np.zeros((3, 2), np.int64),
        has_padding=True,
    )


def test_losses_equal_hand_computed_numbers() -> None:
    mask = torch.tensor([[True, True], [True, False]])
    zeros = torch.zeros(2, 1, 2, 2)
    student = torch.arange(8.0).reshape(2, 1, 2, 2)
    # Real pairs: all four of row 0 (0, 1, 2, 3) and one of row 1 (4): (0 + 1 + 4 + 9 + 16) / 5.
    assert attention_loss([student], [zeros], mask).item() == pytest.approx(6.0)
    assert attention_loss([student, student], [zeros, zeros], mask).item() == pytest.approx(12.0)
    states = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [100.0, 100.0]]])
    double = lambda tensor: 2 * tensor  # noqa: E731
    # Three real tokens: 4 (1 + 4 + 9 + 16 + 25 + 36) / 6.
    assert hidden_loss([states], [torch.zeros(2, 2, 2)], [double], mask).item() == pytest.approx(4 * 91 / 6)
    assert embedding_loss(states, torch.zeros(2, 2, 2), double, mask).item() == pytest.approx(4 * 91 / 6)
    even, odds = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3.0), 0.0]])
    assert prediction_loss(even, odds, 1.0).item() == pytest.approx(math.log(2.0))
    assert prediction_loss(odds, even, 1.0).item() == pytest.approx(math.log(4.0) - 0.5 * math.log(3.0))
    # At t = 2 the teacher's odds of 9 are odds of 3.
    at_two = prediction_loss(torch.tensor([[2 * math.log(3.0), 0.0]]), torch.tensor([[math.log(9.0), 0.0]]), 2.0)
    assert at_two.item() == pytest.approx(math.log(4.0) - 0.75 * math.log(3.0))
    assert regression_loss(torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1.0]])).item() == pytest.approx(2.5)


@pytest.mark.parametrize("is_regression", [False, True])
def test_hard_labels_join_the_loss_row_by_row(teacher_dir: Path, is_regression: bool) -> None:
    torch.manual_seed(3)
    width = 1 if is_regression else 2
    teacher, student = (load_classifier(str(teacher_dir), width).eval() for _ in range(2))
    batch = replace(random_batch(), labels=torch.tensor([1.0, math.nan, 0.0]))
    arguments = {"teacher": teacher, "student": student, "is_regression": is_regression, "temperature": 2.0}
    mixed = PredictionDistillation(**arguments, hard_label_weight=0.25).losses(batch)
    with torch.no_grad():
        theirs, own = (slow_states(model, batch)[2] for model in (teacher, student))
    soft, hard = 0.0, 0.0
    for row, label in enumerate((1, None, 0)):
        if is_regression:
            answer = float((own[row][0] - theirs[row][0]) ** 2)
            truth = 0.0 if label is None else float((own[row][0] - label) ** 2)
        else:
            answer = -float((torch.softmax(theirs[row] / 2, -1) * torch.log_softmax(own[row] / 2, -1)).sum())
            truth = 0.0 if label is None else -float(torch.log_softmax(own[row], -1)[label])
        soft += (1.0 if label is None else 0.75) * answer / 3
        hard += 0.25 * truth / 3
    assert mixed["prediction"].item() == pytest.approx(soft, rel=1e-4, abs=1e-6)
    assert mixed["hard_labels"].item() == pytest.approx(hard, rel=1e-4, abs=1e-6)
    alone = PredictionDistillation(**arguments).losses(batch)
    none = PredictionDistillation(**arguments, hard_label_weight=0.25).losses(
        replace(batch, labels=torch.full((3,), math.nan))
    )
    assert none["prediction"].item() == pytest.approx(alone["prediction"].item(), rel=1e-5)
    assert none["hard_labels"].item() == 0.0


def test_gradients_are_those_of_the_plain_formula() -> None:
    mask = torch.tensor([[True, True, True], [True, True, False]])
    teacher = torch.randn(2, 2, 3, 3, dtype=torch.double)
    student = torch.randn(2, 2, 3, 3, dtype=torch.double, requires_grad=True)

    def attention(scores: Tensor) -> Tensor:
        pairs = mask[:, None, :, None] & mask[:, None, None, :]
        return ((scores - teacher).square() * pairs).sum() / (pairs.sum() * 2)

    loss = attention_loss([student], [teacher], mask)
    ours = torch.autograd.grad(loss, student)[0]
    theirs = torch.autograd.grad(attention(student), student)[0]
    assert torch.allclose(ours.double(), theirs, atol=1e-6)
    assert torch.autograd.gradcheck(attention, student)
    assert (ours[1, :, 2] == 0).all()
    assert (ours[1, :, :, 2] == 0).all()


@pytest.fixture(scope="module")
def teacher_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("teacher") / "model")


def slow_states(model: Any, batch: Batch) -> tuple[list[list[Tensor]], list[list[Tensor]], Tensor]:
    """Hidden states, attention scores and logits of each row, without padding, from the library's own forward pass.

    Scores are recomputed from each layer's queries and keys.
    """
    states, scores, logits = [], [], []
    for row, length in enumerate(LENGTHS):
        inputs = {
            "input_ids": batch.input_ids[row : row + 1, :length],
            "token_type_ids": batch.token_type_ids[row : row + 1, :length],
        }
        output = model(**inputs, output_hidden_states=True)
        logits.append(output.logits[0])
        states.append([state[0] for state in output.hidden_states])
        per_layer = []
        for layer, state in zip(model.bert.encoder.layer, output.hidden_states[:-1], strict=True):
            attention = layer.attention.self
            heads, size = attention.num_attention_heads, attention.attention_head_size
            query = attention.query(state[0]).view(length, heads, size)
            key = attention.key(state[0]).view(length, heads, size)
            products = [[[query[i, h] @ key[j, h] for j in range(length)] for i in range(length)] for h in range(heads)]
            flat = torch.stack([torch.stack([torch.stack(line) for line in head]) for head in products])
            per_layer.append(flat / math.sqrt(size))
        scores.append(per_layer)
    return states, scores, torch.stack(logits)


@pytest.mark.parametrize("projection", ["shared", "per-layer"])
def test_losses_and_gradients_equal_a_slow_implementation_of_the_paper(teacher_dir: Path, projection: Any) -> None:
    torch.manual_seed(0)
    eager = transformers.BertForSequenceClassification.from_pretrained(teacher_dir, attn_implementation="eager").eval()
    teacher = load_classifier(str(teacher_dir)).eval()
    config = transformers.BertConfig(
        vocab_size=eager.config.vocab_size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=24,
        max_position_embeddings=64,
        num_labels=2,
        attn_implementation="eager",
    )
    slow_student = transformers.BertForSequenceClassification(config).eval()
    fast_student = transformers.BertForSequenceClassification(config).eval()
    fast_student.load_state_dict(slow_student.state_dict())
    fast_student.config._attn_implementation = teacher.config._attn_implementation
    projections = Projections(projection, 2, 16, 32)
    mapping = (2, 4)
    batch = random_batch()

    fast = IntermediateDistillation(
        teacher=teacher.bert, student=fast_student.bert, projections=projections, mapping=mapping
    ).losses(batch)
    fast |= PredictionDistillation(teacher=teacher, student=fast_student, is_regression=False, temperature=1.5).losses(
        batch
    )
    sum(fast.values()).backward()  # type: ignore[union-attr]
    fast_gradients = {name: gradient_of(weight).clone() for name, weight in fast_student.named_parameters()}
    fast_projection = [gradient_of(weight).clone() for weight in projections.parameters()]
    projections.zero_grad()

    own_states, own_scores, own_logits = slow_states(slow_student, batch)
    with torch.no_grad():
        states, scores, logits = slow_states(eager, batch)
    tokens, pairs = sum(LENGTHS), sum(length * length for length in LENGTHS)
    slow = {"attention": torch.zeros(()), "hidden": torch.zeros(()), "embedding": torch.zeros(())}
    for row in range(3):
        error = (projections.maps[0](own_states[row][0]) - states[row][0]).square().sum() / (tokens * 32)
        slow["embedding"] = slow["embedding"] + error
        for m in (1, 2):
            w_h = projections.maps[m if projection == "per-layer" else 0]
            hidden = (w_h(own_states[row][m]) - states[row][mapping[m - 1]]).square().sum() / (tokens * 32)
            slow["hidden"] = slow["hidden"] + hidden
            attention = (own_scores[row][m - 1] - scores[row][mapping[m - 1] - 1]).square().sum() / (pairs * 4)
            slow["attention"] = slow["attention"] + attention
    target = torch.softmax(logits / 1.5, -1)
    slow["prediction"] = -(target * torch.log_softmax(own_logits / 1.5, -1)).sum() / 3
    for name, value in slow.items():
        assert fast[name].item() == pytest.approx(value.item(), rel=1e-5), name
    sum(slow.values()).backward()  # type: ignore[union-attr]
    for name, weight in slow_student.named_parameters():
        assert torch.allclose(fast_gradients[name], gradient_of(weight), atol=2e-6, rtol=1e-4), name
    for ours, theirs in zip(fast_projection, projections.parameters(), strict=True):
        assert torch.allclose(ours, gradient_of(theirs), atol=2e-6, rtol=1e-4)


def test_states_and_logits_equal_those_of_transformers(teacher_dir: Path) -> None:
    eager = transformers.BertForSequenceClassification.from_pretrained(teacher_dir, attn_implementation="eager").eval()
    ours = load_classifier(str(teacher_dir)).eval()
    batch = random_batch(3)
    with torch.no_grad():
        theirs = eager(
            batch.input_ids,
            attention_mask=batch.mask.long(),
            token_type_ids=batch.token_type_ids,
            output_hidden_states=True,
        )
        states = encode(ours.bert, batch.input_ids, batch.token_type_ids, batch.model_mask, (1, 3))
        logits = classify(ours, batch.input_ids, batch.token_type_ids, batch.model_mask)
    assert torch.allclose(logits, theirs.logits, atol=1e-5)
    assert sorted(states.attention_scores) == [1, 3]
    for own, their in zip(states.hidden_states, theirs.hidden_states, strict=True):
        assert torch.allclose(own[batch.mask], their[batch.mask], atol=1e-5)


def test_the_last_layer_of_one_token_has_the_gradients_of_all_tokens(teacher_dir: Path) -> None:
    eager = transformers.BertForSequenceClassification.from_pretrained(teacher_dir, attn_implementation="eager").eval()
    ours = load_classifier(str(teacher_dir)).eval()
    batch = random_batch(3)
    inputs = batch.input_ids, batch.token_type_ids
    theirs = eager(inputs[0], attention_mask=batch.mask.long(), token_type_ids=inputs[1]).logits
    logits = classify(ours, *inputs, batch.model_mask)
    assert torch.allclose(logits, theirs, atol=1e-5)
    for answers in (logits, theirs):
        answers.square().sum().backward()
    wanted = dict(eager.named_parameters())
    for name, weight in ours.named_parameters():
        assert torch.allclose(gradient_of(weight), gradient_of(wanted[name]), atol=1e-5, rtol=1e-4), name


def test_head_counts_must_match() -> None:
    with pytest.raises(UsageError, match="4 attention heads and the teacher 2"):
        attention_loss([torch.zeros(1, 4, 2, 2)], [torch.zeros(1, 2, 2, 2)], torch.ones(1, 2, dtype=torch.bool))
