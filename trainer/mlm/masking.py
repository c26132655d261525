"""Masked batches: the inputs and targets of a masked LM, as a function of (text, seed, step).

The masks of a step are drawn from a counter, for the whole batch at once, so they depend neither on the number of
workers and parts nor on whether the run was resumed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.seeds import masks
from trainer.data.batches import Ints, Window
from trainer.data.corpus import Vocabulary
from trainer.data.text import LENGTH_MULTIPLE, TextSource, round_up

IGNORED = -100
TARGET_MULTIPLE = 64
"""The number of predicted positions is padded to a multiple of this, to keep the number of shapes small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Masking:
    """How positions are chosen and replaced: 80% [MASK], 10% a random token, 10% unchanged."""

    vocabulary: Vocabulary
    probability: float
    max_length: int
    seed: int

    def draw(self, ids: Ints, lengths: Ints, step: int) -> tuple[Ints, NDArray[np.bool_]]:
        """Masked ids and the chosen positions, both (B, L), of (B, L) ids with (B,) lengths."""
        generator = masks(self.seed, step)
        is_token = np.arange(ids.shape[1])[None, :] < lengths[:, None]
        is_token &= (ids != self.vocabulary.cls_id) & (ids != self.vocabulary.sep_id)
        chosen = is_token & (generator.random(ids.shape) < self.probability)
        action = generator.random(ids.shape)
        random_ids = generator.integers(self.vocabulary.first_word_id, self.vocabulary.size, ids.shape)
        masked = np.where(chosen & (action < 0.8), self.vocabulary.mask_id, ids)
        masked = np.where(chosen & (action >= 0.8) & (action < 0.9), random_ids, masked)
        return masked, chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedBatch:
    """One part of a batch. ids: (B, L) int64; lengths: (B,) int64, real tokens of each row.

    positions, labels: (P,) int64, places in the flattened ids and the tokens that were there; label IGNORED is padding.
    target_share: this part's share of the whole batch's predicted positions (see trainer.data.batches.Batch).
    """

    ids: Tensor
    lengths: Tensor
    positions: Tensor
    labels: Tensor
    target_share: float

    @property
    def source_ids(self) -> list[int]:
        """Plain text has no source ids."""
        return []

    def to(self, device: str) -> MaskedBatch:
        """The same batch on another device."""
        if device == "cpu":
            return self
        names = ("ids", "lengths", "positions", "labels")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedWindow:
    """A window of text whose batches are masked when they are made."""

    text: Window
    masking: Masking

    @property
    def num_batches(self) -> int:
        """Batches of the window."""
        return self.text.num_batches

    def position(self, batch: int) -> float:
        """Passes over the corpus done before a batch."""
        return self.text.position(batch)

    def num_rows(self, batch: int) -> int:
        """Sequences of a batch."""
        return self.text.num_rows(batch)

    def num_tokens(self, batch: int) -> int:
        """Tokens of a batch, padding not counted."""
        return self.text.num_tokens(batch)

    def only(self, rank: int, world: int, accumulate: int) -> MaskedWindow:
        """The whole window: the masks of a batch are drawn for all of its sequences."""
        return self

    def part(self, batch: int, part: int, num_parts: int, step: int) -> MaskedBatch | None:
        """Every num_parts-th sequence of a batch; None if it has no masked position."""
        ids, lengths = self._padded(batch)
        masked, chosen = self.masking.draw(ids, lengths, step)
        own_lengths, own_chosen = lengths[part::num_parts], chosen[part::num_parts]
        if not own_chosen.any():
            return None
        width = self._width(own_lengths)
        own_chosen = own_chosen[:, :width]
        positions = np.flatnonzero(own_chosen)
        labels = ids[part::num_parts, :width].reshape(-1)[positions]
        missing = -len(positions) % TARGET_MULTIPLE
        return MaskedBatch(
            ids=torch.from_numpy(np.ascontiguousarray(masked[part::num_parts, :width])),
            lengths=torch.from_numpy(np.ascontiguousarray(own_lengths)),
            positions=torch.from_numpy(np.pad(positions, (0, missing))),
            labels=torch.from_numpy(np.pad(labels, (0, missing), constant_values=IGNORED)),
            target_share=len(positions) / int(chosen.sum()),
        )

    def _padded(self, batch: int) -> tuple[Ints, Ints]:
        """(B, L) ids and (B,) lengths of a whole batch."""
        low, high = self.text.batch_offsets[batch], self.text.batch_offsets[batch + 1]
        offsets = self.text.pieces.offsets[low : high + 1]
        lengths = np.diff(offsets)
        ids = np.full((len(lengths), self._width(lengths)), self.masking.vocabulary.pad_id, np.int64)
        ids[np.arange(ids.shape[1])[None, :] < lengths[:, None]] = self.text.pieces.ids[offsets[0] : offsets[-1]]
        return ids, lengths

    def _width(self, lengths: Ints) -> int:
        return min(int(round_up(lengths.max(), LENGTH_MULTIPLE)), self.masking.max_length)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedSource:
    """Windows of masked text."""

    text: TextSource
    masking: Masking

    def num_windows(self, epoch: int) -> int:
        """Windows of an epoch."""
        return self.text.num_windows(epoch)

    def prepare(self, epoch: int, window: int) -> MaskedWindow:
        """One window, in training order."""
        return MaskedWindow(text=self.text.prepare(epoch, window), masking=self.masking)
