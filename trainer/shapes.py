"""Initialises a student whose shape differs from its teacher's: token frequencies and fitted projections."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from trainer.data.batches import Batch
from trainer.data.sources import WindowSource
from trainer.data.token_file import TokenFile
from trainer.scores import encode
from trainer.student import Projections

RIDGE = 1e-3
"""Share of the mean squared student entry that is added to the diagonal: directions without signal stay small."""


def token_frequencies(files: Sequence[TokenFile], weights: Sequence[float], vocabulary_size: int) -> Tensor:
    """(tokens,) float32: how often each token of the vocabulary occurs in the weighted corpus."""
    counts = torch.zeros(vocabulary_size)
    for file, weight in zip(files, weights, strict=True):
        of_file = torch.zeros(vocabulary_size, dtype=torch.int64)
        for block in file.blocks():
            of_file += torch.bincount(torch.tensor(block).long(), minlength=vocabulary_size)
        counts += weight * of_file
    return counts


def first_batches(source: WindowSource[Batch], count: int, device: str) -> list[Batch]:
    """The first batches of the first window, at most `count`."""
    window = source.prepare(0, 0)
    parts = [window.part(batch, 0, 1, batch) for batch in range(min(count, window.num_batches))]
    return [part.to(device) for part in parts if part is not None]


@torch.no_grad()
def fit_projections(
    projections: Projections, student: Any, teacher: Any, mapping: Sequence[int], batches: Iterable[Batch]
) -> None:
    """Set W_e and every W_h to the least-squares map from the student's initial hidden states to the teacher's.

    A map that is shared by several layers is fitted to all of them. student, teacher: `BertModel` in any precision;
    the sums are kept in fp64. Training then starts with what the embeddings already explain of the teacher, instead of
    spending its first steps on it.
    """
    maps = [projections.w_e, *projections.w_h(len(mapping))]
    distinct: list[Any] = list(dict.fromkeys(maps))
    sums: list[tuple[Tensor, Tensor] | None] = [None] * len(distinct)
    is_training = student.training
    student.eval()
    for batch in batches:
        inputs = batch.input_ids, batch.token_type_ids, batch.model_mask
        own = encode(student, *inputs).hidden_states
        theirs = encode(teacher, *inputs).hidden_states
        for layer, (map_, wanted) in enumerate(zip(maps, (0, *mapping), strict=True)):
            place = distinct.index(map_)
            x = own[layer][batch.mask].double()  # (tokens, d')
            x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
            product, target = x.T @ x, x.T @ theirs[wanted][batch.mask].double()
            before = sums[place]
            sums[place] = (product, target) if before is None else (before[0] + product, before[1] + target)
    student.train(is_training)
    for map_, pair in zip(distinct, sums, strict=True):
        if pair is None:
            continue
        product, target = pair
        ridge = RIDGE * product.diagonal().mean() * torch.eye(len(product), dtype=product.dtype, device=product.device)
        solution = torch.linalg.solve(product + ridge, target)  # (d' + 1, d)
        map_.weight.copy_(solution[:-1].T)
        map_.bias.copy_(solution[-1])
