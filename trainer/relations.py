"""Attention losses for a student and a teacher with different numbers of heads. Works on tensors only.

`scores` is equation 7 of TinyBERT and needs equal numbers. `grouped` averages the scores of consecutive teacher heads
to the student's number. `relations` compares query-query, key-key and value-value relations of the last layers after
both were split into the same number of relation heads (MiniLMv2, arXiv 2012.15828, equations 4-6).

Legend: B rows, L tokens, H heads, R relation heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

from shared.errors import UsageError
from trainer.config import AttentionLoss

Vectors = tuple[Tensor, Tensor, Tensor]
"""Queries, keys and values of a layer, (B, H, L, head size) each."""


def group_scores(scores: Tensor, num_groups: int) -> Tensor:
    """(B, H, L, L) scores -> (B, num_groups, L, L): means over consecutive heads, whose number `num_groups` divides."""
    rows, heads, length, _ = scores.shape
    return scores.view(rows, num_groups, heads // num_groups, length, length).mean(2)


def relation_loss(student: Vectors, teacher: Vectors, num_heads: int, mask: Tensor) -> Tensor:
    """KL divergence of the student's relations from the teacher's, summed over queries, keys and values.

    A relation is softmax(A A^T / sqrt(head size)) over the real tokens, where A is a projection of one relation head.
    The mean is over relation heads and real tokens. mask: (B, L) bool, True on real tokens. Returns a scalar in fp32.
    """
    total = mask.new_zeros((), dtype=torch.float32)
    hidden = ~mask[:, None, None, :]  # (B, 1, 1, L)
    count = mask.sum() * num_heads
    for own, theirs in zip(student, teacher, strict=True):
        log_own = _relations(own, num_heads).masked_fill(hidden, -math.inf).log_softmax(-1)  # (B, R, L, L)
        log_theirs = _relations(theirs, num_heads).masked_fill(hidden, -math.inf).log_softmax(-1)
        terms = log_theirs.exp() * (log_theirs - log_own)
        terms = terms.masked_fill(hidden | ~mask[:, None, :, None], 0.0)
        total = total + terms.sum() / count
    return total


def pooled_loss(student: Tensor, teacher: Tensor, project: Callable[[Tensor], Tensor], mask: Tensor) -> Tensor:
    """MSE between the means of the last layers' states over a row's real tokens, the student's projected.

    The component shared by all tokens of a text is a small part of equation 8's error but most of the text's meaning.
    student: (B, L, d'); teacher: (B, L, d); mask: (B, L) bool. Returns a scalar in fp32.
    """
    share = (mask / mask.sum(1, keepdim=True)).unsqueeze(2)  # (B, L, 1)
    own, theirs = (student.float() * share).sum(1), (teacher.float() * share).sum(1)
    return functional.mse_loss(project(own).float(), theirs)


def relation_heads(student_width: int, teacher_width: int, teacher_heads: int) -> int:
    """The largest number of relation heads, at most the teacher's heads, that divides both widths."""
    common = math.gcd(student_width, teacher_width)
    return max(number for number in range(1, min(teacher_heads, common) + 1) if common % number == 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """Which terms the intermediate loss has, and their weights. attention: see the module; weights: by term name."""

    attention: AttentionLoss
    weights: Mapping[str, float]


def paper_weights() -> dict[str, float]:
    """Weights of TinyBERT: 1 for its three terms, 0 for `pooled`, which is ours."""
    return {"attention": 1.0, "hidden": 1.0, "embedding": 1.0, "pooled": 0.0}


PAPER_OBJECTIVE = Objective(attention="scores", weights=paper_weights())


def make_objective(kind: AttentionLoss, weights: Sequence[str], student_heads: int, teacher_heads: int) -> Objective:
    """The objective that --attention-loss and --loss-weights describe. Raises UsageError when the heads do not fit."""
    if kind == "auto":
        kind = "scores" if student_heads == teacher_heads else "none"
    if kind == "scores" and student_heads != teacher_heads:
        raise UsageError(
            f"the student has {student_heads} attention heads and the teacher {teacher_heads}, but --attention-loss "
            "scores needs equal numbers; use grouped, relations or none"
        )
    if kind == "grouped" and teacher_heads % student_heads:
        raise UsageError(
            f"--attention-loss grouped: the teacher's {teacher_heads} attention heads cannot be divided evenly among "
            f"the student's {student_heads}; use relations or none"
        )
    return Objective(attention=kind, weights=parse_weights(weights))


def parse_weights(weights: Sequence[str]) -> dict[str, float]:
    """`attention=0.1 hidden=1` -> weights by loss term; unnamed terms keep the paper's weights.

    Raises UsageError.
    """
    parsed = paper_weights()
    for part in (one for text in weights for one in text.split(",")):
        name, _, value = part.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if name not in parsed or not 0 <= number < math.inf:
            raise UsageError(
                f"--loss-weights {part}: write TERM=NUMBER, where the number is 0 or more and the term is one of "
                f"{', '.join(parsed)}"
            )
        parsed[name] = number
    return parsed


def _relations(vectors: Tensor, num_heads: int) -> Tensor:
    """(B, H, L, head size) -> (B, R, L, L) scaled products of each relation head with itself, in fp32."""
    rows, heads, length, size = vectors.shape
    joined = vectors.transpose(1, 2).reshape(rows, length, num_heads, heads * size // num_heads).transpose(1, 2)
    return torch.matmul(joined, joined.transpose(2, 3)).float() / math.sqrt(joined.shape[-1])
