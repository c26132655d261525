"""Tokenized examples of one window -> batches of similar length, each padded to its longest row (pure).

A *window* is the unit that is prepared at once: its rows are shuffled together, sorted by length in pools, cut into
batches, and the batches are shuffled. All of it is a function of (examples, seed), so a cursor (epoch, window, batch)
identifies a position in training exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

POOL_BATCHES = 32
"""Rows of this many batches are sorted by length together: larger pools pad less and shuffle less."""
TOKENIZE_ROWS = 8192

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Texts of one window, before tokenization.

    labels: (rows,) float32, a class index or a number, or (rows, C) float32 of 0 and 1 where rows have several; NaN
    where unknown. keys: (rows, 2) int64, source id and n.
    logits: (rows, C) float32 of the teacher, or None.
    """

    texts_a: Sequence[str]
    texts_b: Sequence[str] | None
    labels: NDArray[np.float32]
    keys: Ints
    logits: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.texts_a)


@dataclass(frozen=True, slots=True)
class Pieces:
    """Token ids of rows, special tokens included: row i is `ids[offsets[i]:offsets[i + 1]]`.

    ids: int32; type_ids: uint8, segment 0 or 1; offsets: (rows + 1,) int64.
    """

    ids: NDArray[np.int32]
    type_ids: NDArray[np.uint8]
    offsets: Ints

    @property
    def lengths(self) -> Ints:
        """(rows,) int64."""
        return np.diff(self.offsets)

    def take(self, rows: Ints) -> Pieces:
        """The given rows, in the given order."""
        gather = ragged_ranges(self.offsets[rows], self.lengths[rows])
        return Pieces(self.ids[gather], self.type_ids[gather], to_offsets(self.lengths[rows]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenized:
    """Tokenized rows in reading order. labels, keys, logits: as in Examples."""

    pieces: Pieces
    labels: NDArray[np.float32]
    keys: Ints
    logits: NDArray[np.float32] | None = None
    has_pairs: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Ints) -> Tokenized:
        """The given rows, in the given order."""
        logits = None if self.logits is None else self.logits[rows]
        return replace(
            self, pieces=self.pieces.take(rows), labels=self.labels[rows], keys=self.keys[rows], logits=logits
        )

    @classmethod
    def of(cls, examples: Examples, pieces: Pieces) -> Tokenized:
        """Examples after tokenization."""
        return cls(
            pieces=pieces,
            labels=examples.labels,
            keys=examples.keys,
            logits=examples.logits,
            has_pairs=examples.texts_b is not None,
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Tokenized]) -> Tokenized:
        """All rows of at least one part."""
        if len(parts) == 1:
            return parts[0]
        logits = [part.logits for part in parts if part.logits is not None]
        pieces = Pieces(
            np.concatenate([part.pieces.ids for part in parts]),
            np.concatenate([part.pieces.type_ids for part in parts]),
            to_offsets(np.concatenate([part.pieces.lengths for part in parts])),
        )
        return cls(
            pieces=pieces,
            labels=np.concatenate([part.labels for part in parts]),
            keys=np.concatenate([part.keys for part in parts]),
            logits=np.concatenate(logits) if logits else None,
            has_pairs=any(part.has_pairs for part in parts),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A prepared window: rows in training order; batch b holds rows `batch_offsets[b]:batch_offsets[b + 1]`.

    pieces, labels, keys, logits: as in Tokenized, in any order. rows: for each row of the training order its index in
    them, -1 for rows of other ranks; None if they are in training order. row_lengths: tokens of each row in training
    order, if `pieces` lacks some. begin, end: passes over the data done before and after this window.
    """

    pieces: Pieces
    labels: NDArray[np.float32]
    keys: Ints
    logits: NDArray[np.float32] | None = None
    rows: Ints | None = None
    row_lengths: Ints | None = None
    batch_offsets: Ints
    begin: float
    end: float
    pad_id: int

    @property
    def num_batches(self) -> int:
        """Batches of the whole window."""
        return len(self.batch_offsets) - 1

    def position(self, batch: int) -> float:
        """Passes done before batch `batch`."""
        return self.begin + (self.end - self.begin) * batch / max(self.num_batches, 1)

    def num_rows(self, batch: int) -> int:
        """Rows of a batch."""
        return int(self.batch_offsets[batch + 1] - self.batch_offsets[batch])

    def num_tokens(self, batch: int) -> int:
        """Tokens of a batch, padding not counted."""
        return int(self._lengths(batch).sum())

    def only(self, rank: int, world: int, accumulate: int) -> Window:
        """The same window with only one rank's data; parts of other ranks cannot be made from it."""
        place = np.arange(self.batch_offsets[-1]) - np.repeat(self.batch_offsets[:-1], np.diff(self.batch_offsets))
        mine = np.flatnonzero(place % (world * accumulate) // accumulate == rank)
        rows = self.rows if self.rows is not None else np.arange(self.batch_offsets[-1])
        chosen = rows[mine]
        is_whole = len(mine) == len(rows)
        where = np.full(len(rows), -1, np.int64)
        where[mine] = np.arange(len(mine))
        return replace(
            self,
            pieces=self.pieces.take(chosen),
            labels=self.labels[chosen],
            keys=self.keys[chosen],
            logits=None if self.logits is None else self.logits[chosen],
            rows=None if is_whole else where,
            row_lengths=None if is_whole else self._all_lengths(),
        )

    def _lengths(self, batch: int) -> Ints:
        """Tokens of each row of a batch."""
        places = slice(self.batch_offsets[batch], self.batch_offsets[batch + 1])
        if self.row_lengths is not None:
            return self.row_lengths[places]
        rows = self.rows[places] if self.rows is not None else np.arange(places.start, places.stop)
        return self.pieces.offsets[rows + 1] - self.pieces.offsets[rows]

    def _all_lengths(self) -> Ints:
        if self.row_lengths is not None:
            return self.row_lengths
        return self.pieces.lengths if self.rows is None else self.pieces.lengths[self.rows]

    def part(self, batch: int, part: int = 0, num_parts: int = 1, step: int = 0) -> Batch | None:
        """Part `part` of `num_parts` of a batch: every num_parts-th row; None when it has no rows. `step` is unused."""
        places = np.arange(self.batch_offsets[batch], self.batch_offsets[batch + 1])[part::num_parts]
        if not len(places):
            return None
        mine = places if self.rows is None else self.rows[places]
        assert mine.min() >= 0, "rows of another rank"
        all_lengths = self._lengths(batch)
        lengths = all_lengths[part::num_parts]
        width = int(lengths.max())
        mask = np.arange(width)[None, :] < lengths[:, None]  # (B, L)
        flat = ragged_ranges(self.pieces.offsets[mine], lengths)
        ids = np.full(mask.shape, self.pad_id, np.int64)
        types = np.zeros(mask.shape, np.int64)
        ids[mask] = self.pieces.ids[flat]
        types[mask] = self.pieces.type_ids[flat]
        return Batch(
            input_ids=torch.from_numpy(ids),
            token_type_ids=torch.from_numpy(types),
            mask=torch.from_numpy(mask),
            labels=torch.from_numpy(self.labels[mine]),
            logits=None if self.logits is None else torch.from_numpy(self.logits[mine]),
            keys=self.keys[mine],
            has_padding=bool(lengths.min() < width),
            row_share=len(mine) / len(all_lengths),
            piece_share=float(lengths.sum() / all_lengths.sum()),
            pair_share=float(np.square(lengths).sum() / np.square(all_lengths).sum()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One part of a batch as tensors.

    input_ids, token_type_ids: (B, L) int64; mask: (B, L) bool, True on real tokens; labels: (B,) or, where rows have
    several, (B, C) float32; logits: (B, C) float32 or None; keys: (B, 2) int64, source id and n.

    `*_share`: this part's share of the whole batch's rows, real tokens, and pairs of real tokens. A loss that is a mean
    over rows, tokens or pairs becomes the whole batch's mean when the parts are weighted with it and summed.
    """

    input_ids: Tensor
    token_type_ids: Tensor
    mask: Tensor
    labels: Tensor
    logits: Tensor | None = None
    keys: Ints
    has_padding: bool
    row_share: float = 1.0
    piece_share: float = 1.0
    pair_share: float = 1.0

    @property
    def model_mask(self) -> Tensor | None:
        """`mask`, or None when nothing is padded."""
        return self.mask if self.has_padding else None

    @property
    def source_ids(self) -> list[int]:
        """Source id of each row."""
        return [int(source_id) for source_id in self.keys[:, 0]]

    def to(self, device: str) -> Batch:
        """The same batch on another device."""
        if device == "cpu":
            return self
        names = ("input_ids", "token_type_ids", "mask", "labels", "logits")
        tensors = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        # Pinned memory, so that the copy does not wait for the device.
        return replace(self, **{name: one.pin_memory().to(device, non_blocking=True) for name, one in tensors.items()})


def tokenize(tokenizer: Any, texts_a: Sequence[str], texts_b: Sequence[str] | None, max_length: int) -> Pieces:
    """Token ids of texts or text pairs, cut to `max_length` tokens (the longer text of a pair first)."""
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
    return Pieces(flat, type_ids, to_offsets(lengths))


def prepare_window(
    data: Tokenized,
    *,
    batch_size: int,
    generator: np.random.Generator,
    begin: float,
    end: float,
    pad_id: int,
) -> Window:
    """Order the rows of a window and cut them into batches. Rows are not copied until a batch is made."""
    order, offsets = plan_window(data.pieces.lengths, batch_size, generator)
    return Window(
        pieces=data.pieces,
        labels=data.labels,
        keys=data.keys,
        logits=data.logits,
        rows=order,
        batch_offsets=offsets,
        begin=begin,
        end=end,
        pad_id=pad_id,
    )


def plan_window(lengths: Ints, batch_size: int, generator: np.random.Generator) -> tuple[Ints, Ints]:
    """Row order and batch offsets of a window: shuffled, sorted by length in pools, cut, batches shuffled."""
    order = generator.permutation(len(lengths))
    pool = np.arange(len(order)) // (POOL_BATCHES * batch_size)
    order = order[np.lexsort((lengths[order], pool))]
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    shuffled = [batches[index] for index in generator.permutation(len(batches))]
    offsets = to_offsets([len(batch) for batch in shuffled])
    return (np.concatenate(shuffled) if shuffled else order).astype(np.int64), offsets


def to_offsets(lengths: Sequence[int] | Ints) -> Ints:
    """(n,) lengths -> (n + 1,) int64: where each begins, and the end."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def ragged_ranges(starts: Ints, lengths: Ints) -> Ints:
    """The ranges `starts[i] .. starts[i] + lengths[i]` one after the other, as one int64 array."""
    offsets = to_offsets(lengths)
    ranges: Ints = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
    return ranges
