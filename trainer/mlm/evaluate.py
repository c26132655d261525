"""How well a masked LM predicts held-out text: 15% of the positions, all of them replaced by [MASK]."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from trainer.data.corpus import Vocabulary
from trainer.data.token_file import TokenFile
from trainer.mlm.model import TrainableMaskedLM
from trainer.result import MaskedAccuracy

EVALUATION_SHARE = 0.15
EVALUATION_SEED = 1909


@torch.no_grad()
def score_held_out(
    model: TrainableMaskedLM, file: TokenFile, vocabulary: Vocabulary, max_length: int, dtype: torch.dtype, device: str
) -> MaskedAccuracy | None:
    """Perplexity and top-1/5/15 accuracy on the lines of `file`, cut into passages of `max_length`.

    None when the file has no lines, or too few to mask a token.
    """
    model.eval()
    generator = np.random.Generator(np.random.Philox(key=[EVALUATION_SEED, 0]))
    hits = np.zeros(3)
    total, loss = 0, 0.0
    for rows in _equal_length_rows(file, max_length):
        ids = np.stack([np.concatenate([[vocabulary.cls_id], row, [vocabulary.sep_id]]) for row in rows]).astype(
            np.int64
        )
        chosen = generator.random(ids.shape) < EVALUATION_SHARE
        chosen[:, [0, -1]] = False
        positions = torch.from_numpy(np.flatnonzero(chosen)).to(device)
        if not len(positions):
            continue
        labels = torch.from_numpy(ids.reshape(-1)[chosen.reshape(-1)]).to(device)
        masked = torch.from_numpy(np.where(chosen, vocabulary.mask_id, ids)).to(device)
        lengths = torch.full((len(ids),), ids.shape[1], device=device)
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            states = model.hidden_states(masked, lengths)
            logits = model.logits(states.reshape(-1, states.shape[-1]).index_select(0, positions)).float()
        rank = (logits > logits.gather(1, labels[:, None])).sum(1)
        hits += [_hits(rank, 1), _hits(rank, 5), _hits(rank, 15)]
        loss += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
        total += len(labels)
    model.train()
    if not total:
        return None
    top_1, top_5, top_15 = (round(float(share), 4) for share in hits / total)
    perplexity = math.exp(min(loss / total, 50.0))
    return MaskedAccuracy(num_tokens=total, perplexity=perplexity, top_1=top_1, top_5=top_5, top_15=top_15)


def _hits(rank: Tensor, k: int) -> int:
    return int((rank < k).sum())


def _equal_length_rows(file: TokenFile, max_length: int, batch_tokens: int = 8192) -> list[Sequence[np.ndarray]]:
    """Passages of the file in groups of exactly one length."""
    rows = []
    for line in range(len(file.offsets) - 1):
        ids = file.ids[file.offsets[line] : file.offsets[line + 1]]
        rows += [ids[start : start + max_length - 2] for start in range(0, len(ids), max_length - 2)]
    rows = sorted((row for row in rows if len(row)), key=len)
    groups: list[Sequence[np.ndarray]] = []
    current: list[np.ndarray] = []
    for row in rows:
        if current and (len(row) != len(current[0]) or (len(current) + 1) * (len(row) + 2) > batch_tokens):
            groups.append(current)
            current = []
        current.append(row)
    return [*groups, current] if current else groups
