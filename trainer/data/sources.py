"""Windows from a labelled table (for teachers) and from plain text (for general distillation)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from trainer.data.batches import Examples, Pieces, Window, prepare_window
from trainer.data.corpus import TokenFile, Vocabulary, epoch_batches

TABLE_WINDOW_BATCHES = 256
TEXT_WINDOW_BATCHES = 64


class WindowSource(Protocol):
    """Where a stage's examples come from. `prepare` is a pure function of (source, epoch, window)."""

    def num_windows(self, epoch: int) -> int:
        """Windows of an epoch."""
        ...

    def prepare(self, epoch: int, window: int) -> Window:
        """One window, in training order."""
        ...


@dataclass(frozen=True, slots=True)
class TableSource:
    """All rows of a labelled file, in another order every epoch."""

    examples: Examples
    pieces: Pieces
    batch_size: int
    seed: int

    def num_windows(self, epoch: int) -> int:
        """Windows of an epoch."""
        return -(-len(self.examples) // (TABLE_WINDOW_BATCHES * self.batch_size))

    def prepare(self, epoch: int, window: int) -> Window:
        """A slice of the epoch's permutation."""
        total = len(self.examples)
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, epoch])))
        size = TABLE_WINDOW_BATCHES * self.batch_size
        rows = generator.permutation(total)[window * size : (window + 1) * size]
        chosen = Examples([""] * len(rows), None, self.examples.labels[rows], self.examples.keys[rows])
        begin, end = epoch + window * size / total, epoch + min((window + 1) * size, total) / total
        pieces = self.pieces.take(rows)
        return prepare_window(chosen, pieces, self.batch_size, (self.seed, epoch, window), begin, end)


@dataclass(slots=True)
class TextSource:
    """Passages of text files, cut and batched like masked-LM training does (trainer.data.corpus)."""

    files: Sequence[TokenFile]
    weights: Sequence[float]
    vocabulary: Vocabulary
    max_length: int
    batch_size: int
    seed: int
    _plans: dict[int, list[list[tuple[int, int, int]]]] = field(default_factory=dict, repr=False)

    def num_windows(self, epoch: int) -> int:
        """Windows of an epoch."""
        return -(-len(self._plan(epoch)) // TEXT_WINDOW_BATCHES)

    def prepare(self, epoch: int, window: int) -> Window:
        """The next TEXT_WINDOW_BATCHES batches of the epoch's plan."""
        plan = self._plan(epoch)
        first, last = window * TEXT_WINDOW_BATCHES, min((window + 1) * TEXT_WINDOW_BATCHES, len(plan))
        batches = plan[first:last]
        rows = [
            np.concatenate([[self.vocabulary.cls_id], self.files[number].ids[start:end], [self.vocabulary.sep_id]])
            for batch in batches
            for number, start, end in batch
        ]
        ids = np.concatenate(rows).astype(np.int32)
        pieces = Pieces(ids, np.zeros(len(ids), np.uint8), _offsets([len(row) for row in rows]))
        count = len(rows)
        nothing = np.full(count, np.nan, np.float32)
        keys = np.zeros((count, 2), np.int64)
        offsets = _offsets([len(batch) for batch in batches])
        return Window(pieces, nothing, keys, None, offsets, epoch + first / len(plan), epoch + last / len(plan))

    def _plan(self, epoch: int) -> list[list[tuple[int, int, int]]]:
        if epoch not in self._plans:
            self._plans.clear()
            tokens = self.batch_size * self.max_length
            self._plans[epoch] = epoch_batches(
                self.files, self.weights, self.max_length, tokens, self.vocabulary, self.seed, epoch
            )
        return self._plans[epoch]


def _offsets(lengths: Sequence[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
