"""How well a student reproduces its teacher: the unexplained share of the variance of the teacher's hidden states."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from trainer.data.batches import Batch
from trainer.scores import encode
from trainer.student import Projections


@torch.no_grad()
def unexplained_shares(
    student: Any, teacher: Any, projections: Projections, mapping: Sequence[int], batches: Iterable[Batch]
) -> dict[str, float]:
    """Squared error of the projected hidden states over the variance of the teacher's, on real tokens, by layer.

    0 is a perfect copy, 1 no better than the teacher's mean. Keys: `embedding`, `layer_1` to `layer_M`, and `pooled`
    for the means of the last layer over each row. student, teacher: `BertModel`s. Sums are kept in fp64.
    """
    maps = [projections.w_e, *projections.w_h(len(mapping))]
    names = ["embedding", *(f"layer_{layer + 1}" for layer in range(len(mapping))), "pooled"]
    sums = [_Sums() for _ in names]
    was_training = student.training
    student.eval()
    for batch in batches:
        inputs = batch.input_ids, batch.token_type_ids, batch.model_mask
        own, theirs = encode(student, *inputs).hidden_states, encode(teacher, *inputs).hidden_states
        for layer, (map_, wanted) in enumerate(zip(maps, (0, *mapping), strict=True)):
            sums[layer].add(map_(own[layer])[batch.mask], theirs[wanted][batch.mask])
        share = (batch.mask / batch.mask.sum(1, keepdim=True)).unsqueeze(2)  # (B, L, 1)
        sums[-1].add((maps[-1](own[-1]) * share).sum(1), (theirs[mapping[-1]] * share).sum(1))
    student.train(was_training)
    return {name: round(one.share(), 4) for name, one in zip(names, sums, strict=True)}


class _Sums:
    """Error and variance, accumulated over batches of rows."""

    def __init__(self) -> None:
        self._error, self._squares, self._count = 0.0, 0.0, 0
        self._sum: Tensor | None = None

    def add(self, own: Tensor, theirs: Tensor) -> None:
        """own, theirs: (rows, d)."""
        own, theirs = own.double(), theirs.double()
        self._error += float((own - theirs).square().sum())
        self._squares += float(theirs.square().sum())
        self._count += len(theirs)
        self._sum = theirs.sum(0) if self._sum is None else self._sum + theirs.sum(0)

    def share(self) -> float:
        """Error over variance."""
        mean_square = 0.0 if self._sum is None else float(self._sum.square().sum()) / self._count
        return self._error / max(self._squares - mean_square, 1e-12)
