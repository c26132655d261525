"""Tokenized examples of one window -> batches of like length, padded to the longest of each (pure).

A *window* is the unit that is prepared at once: its rows are shuffled together, sorted by length in pools, cut into
batches, and the batches are shuffled. All of it is a function of (examples, seed), so a cursor (epoch, window, batch)
names a place in training exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

POOL_BATCHES = 32
"""Rows of this many batches are sorted by length together: longer pools pad less and shuffle less."""
TOKENIZE_ROWS = 8192

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Examples:
    """Texts of one window, before tokenization. labels: (rows,) float32, class index or number, NaN where there is
    none; logits: (rows, C) float32 of the teacher, or None; keys: (rows, 2) int64, source id and n."""

    texts_a: Sequence[str]
    texts_b: Sequence[str] | None
    labels: NDArray[np.float32]
    keys: Ints
    logits: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.texts_a)


@dataclass(frozen=True, slots=True)
class Pieces:
    """Piece ids of rows: row i is `ids[offsets[i]:offsets[i + 1]]`, special pieces included. ids int32, type_ids uint8
    (segment 0 or 1), offsets int64 (rows + 1,)."""

    ids: NDArray[np.int32]
    type_ids: NDArray[np.uint8]
    offsets: Ints

    @property
    def lengths(self) -> Ints:
        """(rows,) int64."""
        return np.diff(self.offsets)

    def take(self, rows: Ints) -> Pieces:
        """The rows in another order."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        gather = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - self.offsets[rows], lengths)
        return Pieces(self.ids[gather], self.type_ids[gather], offsets)


@dataclass(frozen=True, slots=True)
class Window:
    """A prepared window: rows in training order; batch b holds rows `batch_offsets[b]:batch_offsets[b + 1]`.

    `begin`, `end`: share of the stage's data before and after this window, in epochs.
    """

    pieces: Pieces
    labels: NDArray[np.float32]
    keys: Ints
    logits: NDArray[np.float32] | None
    batch_offsets: Ints
    begin: float
    end: float

    @property
    def num_batches(self) -> int:
        """Batches of the whole window."""
        return len(self.batch_offsets) - 1

    def position(self, batch: int) -> float:
        """Epochs done before batch `batch`."""
        return self.begin + (self.end - self.begin) * batch / max(self.num_batches, 1)


@dataclass(frozen=True, slots=True)
class Batch:
    """One part of a batch as tensors. input_ids, token_type_ids: (B, L) int64; mask: (B, L) bool, True on real
    pieces; labels: (B,) float32; logits: (B, C) float32 or None.

    `*_share`: this part's share of the whole batch's rows, real pieces and pairs of them. A loss that is a mean over
    rows, pieces or pairs becomes the whole batch's mean when the parts are weighted with it and summed.
    """

    input_ids: Tensor
    token_type_ids: Tensor
    mask: Tensor
    labels: Tensor
    logits: Tensor | None
    keys: Ints
    has_padding: bool
    row_share: float
    piece_share: float
    pair_share: float

    @property
    def model_mask(self) -> Tensor | None:
        """`mask`, or None when nothing is padded."""
        return self.mask if self.has_padding else None

    def to(self, device: str) -> Batch:
        """On another device."""
        if device == "cpu":
            return self

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return Batch(
            move(self.input_ids), move(self.token_type_ids), move(self.mask), move(self.labels),
            None if self.logits is None else move(self.logits), self.keys, self.has_padding, self.row_share,
            self.piece_share, self.pair_share,
        )  # fmt: skip


def tokenize(tokenizer: Any, texts_a: Sequence[str], texts_b: Sequence[str] | None, max_length: int) -> Pieces:
    """Pieces of texts or text pairs, cut to `max_length` (the longer text of a pair first)."""
    ids: list[int] = []
    types: list[int] = []
    lengths: list[int] = []
    for start in range(0, len(texts_a), TOKENIZE_ROWS):
        part = slice(start, start + TOKENIZE_ROWS)
        encoded = tokenizer(
            list(texts_a[part]),
            None if texts_b is None else list(texts_b[part]),
            truncation=True if texts_b is None else "longest_first",
            max_length=max_length,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=texts_b is not None,
        )
        for row in encoded["input_ids"]:
            ids += row
            lengths.append(len(row))
        for row in encoded.get("token_type_ids", ()):
            types += row
    flat = np.asarray(ids, np.int32)
    type_ids = np.asarray(types, np.uint8) if texts_b is not None else np.zeros(len(flat), np.uint8)
    return Pieces(flat, type_ids, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def plan_window(lengths: Ints, batch_size: int, generator: np.random.Generator) -> tuple[Ints, Ints]:
    """Row order and batch offsets of a window: shuffled, sorted by length in pools, cut, batches shuffled."""
    order = generator.permutation(len(lengths))
    pool = np.arange(len(order)) // (POOL_BATCHES * batch_size)
    order = order[np.lexsort((lengths[order], pool))]
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    shuffled = [batches[index] for index in generator.permutation(len(batches))]
    offsets = np.concatenate([[0], np.cumsum([len(batch) for batch in shuffled])]).astype(np.int64)
    return (np.concatenate(shuffled) if shuffled else order).astype(np.int64), offsets


def prepare_window(
    examples: Examples, pieces: Pieces, batch_size: int, seed: Sequence[int], begin: float, end: float
) -> Window:
    """Order and cut the rows of a window. `seed`: what names the window, such as (seed, epoch, window)."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(list(seed))))
    order, offsets = plan_window(pieces.lengths, batch_size, generator)
    logits = None if examples.logits is None else examples.logits[order]
    return Window(pieces.take(order), examples.labels[order], examples.keys[order], logits, offsets, begin, end)


def make_batch(window: Window, batch: int, pad_id: int, part: int = 0, num_parts: int = 1) -> Batch | None:
    """Part `part` of `num_parts` of batch `batch`: every num_parts-th row; None when it has none."""
    rows = np.arange(window.batch_offsets[batch], window.batch_offsets[batch + 1])
    all_lengths = window.pieces.lengths[rows]
    mine = rows[part::num_parts]
    if not len(mine):
        return None
    lengths = window.pieces.lengths[mine]
    width = int(lengths.max())
    mask = np.arange(width)[None, :] < lengths[:, None]  # (B, L)
    start, stop = window.pieces.offsets[mine], window.pieces.offsets[mine + 1]
    flat = np.concatenate([np.arange(low, high) for low, high in zip(start, stop, strict=True)])
    ids = np.full(mask.shape, pad_id, np.int64)
    types = np.zeros(mask.shape, np.int64)
    ids[mask] = window.pieces.ids[flat]
    types[mask] = window.pieces.type_ids[flat]
    return Batch(
        input_ids=torch.from_numpy(ids),
        token_type_ids=torch.from_numpy(types),
        mask=torch.from_numpy(mask),
        labels=torch.from_numpy(window.labels[mine]),
        logits=None if window.logits is None else torch.from_numpy(window.logits[mine]),
        keys=window.keys[mine],
        has_padding=bool(lengths.min() < width),
        row_share=len(mine) / len(rows),
        piece_share=float(lengths.sum() / all_lengths.sum()),
        pair_share=float(np.square(lengths).sum() / np.square(all_lengths).sum()),
    )
