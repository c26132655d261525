"""Equations 7-11 of TinyBERT (arXiv 1909.10351), one function each; pure functions of tensors.

Legend: B rows, L tokens, H heads, C classes, d' student width, d teacher width. Every loss is a mean over real tokens
(padding is ignored), summed over the mapped layers, and returned in fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

from shared.errors import UsageError

Project = Callable[[Tensor], Tensor]


def attention_loss(student_scores: Sequence[Tensor], teacher_scores: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Mean squared error of attention scores, averaged over heads, summed over mapped layers (eq. 7).

    Scores: one (B, H, L, L) float tensor per student layer, before softmax. mask: (B, L) bool, True on real tokens;
    pairs with padding are ignored. Returns a scalar in fp32. Raises UsageError if head counts differ.
    """
    pairs = mask[:, None, :, None] & mask[:, None, None, :]  # (B, 1, L, L)
    total = mask.new_zeros((), dtype=torch.float32)
    for student, teacher in zip(student_scores, teacher_scores, strict=True):
        if student.shape[1] != teacher.shape[1]:
            raise UsageError(
                f"the student has {student.shape[1]} attention heads and the teacher {teacher.shape[1]}, but equation "
                "7 needs equal numbers; set the student's heads with --student M,d',FFN,heads"
            )
        total = total + _masked_mean(student, teacher, pairs, student.shape[1])
    return total


def hidden_loss(
    student_states: Sequence[Tensor], teacher_states: Sequence[Tensor], projections: Sequence[Project], mask: Tensor
) -> Tensor:
    """MSE(H_S W_h, H_T), summed over mapped layers (eq. 8).

    States: one (B, L, d') and (B, L, d) tensor per student layer; projections: W_h of each, d' to d.
    """
    pieces = mask[:, :, None]  # (B, L, 1)
    total = mask.new_zeros((), dtype=torch.float32)
    for student, teacher, project in zip(student_states, teacher_states, projections, strict=True):
        total = total + _masked_mean(project(student), teacher, pieces, teacher.shape[-1])
    return total


def embedding_loss(student_embeddings: Tensor, teacher_embeddings: Tensor, project: Project, mask: Tensor) -> Tensor:
    """MSE(E_S W_e, E_T) (eq. 9). Embeddings: (B, L, d') and (B, L, d), the outputs of the embedding layers."""
    return hidden_loss([student_embeddings], [teacher_embeddings], [project], mask)


def prediction_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Soft cross-entropy CE(softmax(z_T / t), log_softmax(z_S / t)), mean over rows (eq. 10). Logits: (B, C)."""
    return prediction_losses(student_logits, teacher_logits, temperature).mean()


def prediction_losses(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """(B,): the same for each row."""
    target = functional.softmax(teacher_logits.float() / temperature, dim=-1)
    log_student = functional.log_softmax(student_logits.float() / temperature, dim=-1)
    return -(target * log_student).sum(-1)


def regression_loss(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Equation 10 for regression tasks: mean squared error of the single logit. Logits: (B, 1)."""
    return functional.mse_loss(student_logits.float(), teacher_logits.float())


def regression_losses(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """(B,): the same for each row."""
    return (student_logits.float() - teacher_logits.float()).square().mean(-1)


def multi_label_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Equation 10 for multi-label tasks, where each logit is independent.

    Binary cross-entropy of sigmoid(z_S / t) against sigmoid(z_T / t), mean over rows and labels. Logits: (B, C).
    """
    return multi_label_losses(student_logits, teacher_logits, temperature).mean()


def multi_label_losses(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """(B,): the same for each row."""
    target = torch.sigmoid(teacher_logits.float() / temperature)
    return _binary_losses(student_logits.float() / temperature, target)


def hard_label_losses(student_logits: Tensor, labels: Tensor, is_regression: bool) -> Tensor:
    """(B,): cross-entropy with the row's own class or classes, or squared error to its number; 0 where it is NaN.

    Logits: (B, C); labels: (B,) float32, a class index or a number, or (B, C) float32 of 0 and 1: then the binary
    cross-entropy, mean over the labels.
    """
    known = ~torch.isnan(labels)
    filled = torch.where(known, labels, 0.0)
    if labels.ndim == 2:
        return _binary_losses(student_logits.float(), filled) * known.all(-1)
    if is_regression:
        return (student_logits[:, 0].float() - filled).square() * known
    return functional.cross_entropy(student_logits.float(), filled.long(), reduction="none") * known


def _binary_losses(logits: Tensor, target: Tensor) -> Tensor:
    """(B,): mean over the labels. Both (B, C), the target in [0, 1]."""
    return functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(-1)


def _masked_mean(student: Tensor, teacher: Tensor, kept: Tensor, width: int) -> Tensor:
    """Mean of (student - teacher)^2 where `kept`, which has size 1 in the dimension of size `width`."""
    mean: Tensor = _MaskedMean.apply(student, teacher, kept, width)  # type: ignore[no-untyped-call]
    return mean


class _MaskedMean(torch.autograd.Function):
    """`_masked_mean` in half the passes over memory: its gradient is the scaled difference from the forward pass."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, kept: Tensor, width: int) -> Tensor:
        """A scalar in fp32."""
        difference = (student.float() - teacher.float()).mul_(kept)
        count = kept.sum() * width
        ctx.save_for_backward(difference, count)
        ctx.dtype = student.dtype
        flat = difference.flatten()
        return torch.dot(flat, flat) / count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """The student's gradient, in its precision; the teacher gets none."""
        difference, count = ctx.saved_tensors
        return (difference * (2.0 * gradient / count)).to(ctx.dtype), None, None, None
