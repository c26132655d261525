"""Losses between a teacher and a student with fewer heads, against a plain restatement, row by row and head by head."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from shared.errors import UsageError
from trainer.losses import attention_loss
from trainer.relations import (
    PAPER_OBJECTIVE,
    group_scores,
    make_objective,
    parse_weights,
    pooled_loss,
    relation_heads,
    relation_loss,
)

LENGTHS = (7, 4, 5)
MASK = torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]


def slow_relation_loss(student: Tensor, teacher: Tensor, num_heads: int) -> Tensor:
    """Equation 4-6 of arXiv 2012.15828 for one kind of vectors, as loops. (B, H, L, size) -> scalar."""
    total, count = torch.zeros((), dtype=torch.double), 0
    for row, length in enumerate(LENGTHS):
        flat = [torch.cat(list(vectors[row]), dim=-1)[:length].double() for vectors in (student, teacher)]
        for head in range(num_heads):
            own, theirs = (one[:, head * (size := one.shape[1] // num_heads) : (head + 1) * size] for one in flat)
            for token in range(length):
                q = torch.softmax(own @ own[token] / own.shape[1] ** 0.5, dim=0)
                p = torch.softmax(theirs @ theirs[token] / theirs.shape[1] ** 0.5, dim=0)
                total = total + (p * (p / q).log()).sum()
                count += 1
    return total / count


def vectors(heads: int, size: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(3, heads, max(LENGTHS), size, generator=generator) for _ in range(3)]
    return made[0], made[1], made[2]


@pytest.mark.parametrize("num_heads", [1, 2, 6])
def test_relations_equal_the_plain_restatement(num_heads: int) -> None:
    student, teacher = vectors(2, 6, 0), vectors(6, 4, 1)
    wanted = sum(slow_relation_loss(own, theirs, num_heads) for own, theirs in zip(student, teacher, strict=True))
    assert relation_loss(student, teacher, num_heads, MASK).item() == pytest.approx(float(wanted), rel=1e-5)


def test_relations_of_a_model_to_itself_are_zero_and_padding_gets_no_gradient() -> None:
    student, teacher = vectors(2, 6, 0), vectors(6, 4, 1)
    assert relation_loss(student, student, 4, MASK).item() == pytest.approx(0.0, abs=1e-6)
    for one in student:
        one.requires_grad_()
    relation_loss(student, teacher, 4, MASK).backward()  # type: ignore[no-untyped-call]
    for one in student:
        assert one.grad is not None
        assert torch.isfinite(one.grad).all()
        assert (one.grad.transpose(1, 2)[~MASK] == 0).all()
        assert (one.grad.transpose(1, 2)[MASK] != 0).any()


def test_grouped_scores_are_means_of_consecutive_heads() -> None:
    scores = torch.randn(2, 12, 5, 5)
    grouped = group_scores(scores, 4)
    for group in range(4):
        mean = torch.stack([scores[:, head] for head in range(3 * group, 3 * group + 3)]).mean(0)
        assert torch.allclose(grouped[:, group], mean, atol=1e-6)
    assert torch.equal(group_scores(scores, 12), scores)
    mask = torch.ones(2, 5, dtype=torch.bool)
    assert attention_loss([grouped], [group_scores(scores, 4)], mask).item() == 0.0


def test_pooled_states_are_means_over_real_tokens() -> None:
    student, teacher, project = torch.randn(3, 7, 4), torch.randn(3, 7, 6), torch.nn.Linear(4, 6)
    total = 0.0
    for row, length in enumerate(LENGTHS):
        own = torch.stack([project(state) for state in student[row, :length]]).mean(0)
        total += float((own - teacher[row, :length].mean(0)).square().mean().detach()) / 3
    assert pooled_loss(student, teacher, project, MASK).item() == pytest.approx(total, rel=1e-5)


def test_relation_heads_divide_both_widths() -> None:
    assert relation_heads(144, 384, 12) == 12
    assert relation_heads(84, 384, 12) == 12
    assert relation_heads(312, 768, 12) == 12
    assert relation_heads(100, 384, 12) == 4


def test_the_objective_depends_on_the_heads() -> None:
    assert make_objective("auto", (), 12, 12) == PAPER_OBJECTIVE
    assert make_objective("auto", (), 4, 12).attention == "none"
    assert make_objective("grouped", ("attention=0.1",), 4, 12).weights["attention"] == 0.1
    with pytest.raises(UsageError, match="needs equal numbers"):
        make_objective("scores", (), 4, 12)
    with pytest.raises(UsageError, match="cannot be divided evenly among the student's 5"):
        make_objective("grouped", (), 5, 12)


def test_weights_of_losses() -> None:
    assert parse_weights(()) == {"attention": 1.0, "hidden": 1.0, "embedding": 1.0, "pooled": 0.0}
    assert parse_weights(("attention=0.1,hidden=2", "pooled=4"))["attention"] == 0.1
    for wrong in ("attention", "attention=x", "attention=-1", "other=1", "hidden=inf"):
        with pytest.raises(UsageError, match="write TERM=NUMBER"):
            parse_weights((wrong,))
