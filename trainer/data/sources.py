"""Where a stage's windows come from: the interface, and the source for labelled tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

from shared.seeds import table_order, window_order
from trainer.data.batches import Examples, Pieces, Tokenized, Window, prepare_window

TABLE_WINDOW_BATCHES = 256

BatchT_co = TypeVar("BatchT_co", covariant=True)


class PreparedWindow(Protocol[BatchT_co]):
    """Rows in training order, cut into batches."""

    @property
    def num_batches(self) -> int:
        """Batches of the window."""
        ...

    def position(self, batch: int) -> float:
        """Passes over the data done before a batch."""
        ...

    def num_rows(self, batch: int) -> int:
        """Rows of a batch."""
        ...

    def num_tokens(self, batch: int) -> int:
        """Tokens of a batch, padding not counted."""
        ...

    def only(self, rank: int, world: int, accumulate: int) -> PreparedWindow[BatchT_co]:
        """The window without data that this rank does not need."""
        ...

    def part(self, batch: int, part: int, num_parts: int, step: int) -> BatchT_co | None:
        """Part `part` of `num_parts` of a batch; None when it has nothing to learn from.

        step: number of the batch within the stage.
        """
        ...


class WindowSource(Protocol[BatchT_co]):
    """Where a stage's examples come from. `prepare` is a pure function of (source, epoch, window)."""

    def num_windows(self, epoch: int) -> int:
        """Windows of an epoch."""
        ...

    def prepare(self, epoch: int, window: int) -> PreparedWindow[BatchT_co]:
        """One window, in training order. Raises ExpectedError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSource:
    """All rows of a labelled file, in a different order every epoch."""

    examples: Examples
    pieces: Pieces
    batch_size: int
    seed: int
    pad_id: int

    def num_windows(self, epoch: int) -> int:
        """Windows of an epoch; the same for each."""
        return -(-len(self.examples) // (TABLE_WINDOW_BATCHES * self.batch_size))

    def prepare(self, epoch: int, window: int) -> Window:
        """A slice of the epoch's permutation."""
        total = len(self.examples)
        size = TABLE_WINDOW_BATCHES * self.batch_size
        rows = table_order(self.seed, epoch).permutation(total)[window * size : (window + 1) * size]
        return prepare_window(
            Tokenized.of(self.examples, self.pieces).take(rows),
            batch_size=self.batch_size,
            generator=window_order(self.seed, epoch, window),
            begin=epoch + window * size / total,
            end=epoch + min((window + 1) * size, total) / total,
            pad_id=self.pad_id,
        )
