"""Training sequences and batches from plain text, for general distillation and masked-LM training (pure).

A sequence is a run of whole sentences of one line, up to a randomly drawn length: the model must handle single short
sentences as well as passages. Batches hold sequences of nearly equal length under a token budget, so that there is
almost no padding, and sequences are never concatenated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.seeds import text_order
from trainer.data.batches import Ints, Pieces, Window, ragged_ranges, to_offsets
from trainer.data.corpus import Vocabulary
from trainer.data.token_file import TokenFile, num_parts_of

SEGMENT_LIMITS = (0.25, 0.5, 1.0, 1.0)
"""Shares of the longest length that a line may be cut to, one drawn per line."""
POOL_BATCHES = 64
"""Sequences of this many batches are sorted by length together."""
WINDOW_BATCHES = 64
LENGTH_MULTIPLE = 4
"""Batches are padded to a multiple of this: oneDNN compiles a kernel for each shape and caches about a thousand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochPlan:
    """Sequences of one epoch in training order: batch b holds rows `batch_offsets[b]:batch_offsets[b + 1]`.

    segments: (rows, 3) int64: file, and start and end within the ids of that file.
    """

    segments: Ints
    batch_offsets: Ints

    @property
    def num_batches(self) -> int:
        """Batches of the epoch."""
        return len(self.batch_offsets) - 1


@dataclass(slots=True, kw_only=True)
class TextSource:
    """Windows of WINDOW_BATCHES batches of passages.

    weights: passes over each file. An epoch is one weighted pass, or, of a large corpus, one of its `num_parts` parts.
    A batch has at most batch_size x max_length tokens, padding included.
    """

    files: Sequence[TokenFile]
    weights: Sequence[float]
    vocabulary: Vocabulary
    max_length: int
    batch_size: int
    seed: int
    _plan: tuple[int, EpochPlan] | None = field(default=None, repr=False)
    _num_batches: dict[int, int] = field(default_factory=dict, repr=False)

    @property
    def num_parts(self) -> int:
        """Epochs that make one pass over the corpus."""
        return num_parts_of(self.tokens_per_pass)

    @property
    def tokens_per_pass(self) -> float:
        """Expected tokens of one pass over the weighted corpus, special tokens not counted."""
        return sum(weight * len(file.ids) for weight, file in zip(self.weights, self.files, strict=True))

    def num_windows(self, epoch: int) -> int:
        """Windows of an epoch."""
        if epoch not in self._num_batches:
            self._num_batches[epoch] = self.plan(epoch).num_batches
        return -(-self._num_batches[epoch] // WINDOW_BATCHES)

    def prepare(self, epoch: int, window: int) -> Window:
        """The next WINDOW_BATCHES batches of the epoch's plan. labels are NaN and keys zero: plain text has none."""
        plan = self.plan(epoch)
        total = plan.num_batches
        first, last = window * WINDOW_BATCHES, min((window + 1) * WINDOW_BATCHES, total)
        low, high = plan.batch_offsets[first], plan.batch_offsets[last]
        count = int(high - low)
        return Window(
            pieces=self._pieces(plan.segments[low:high]),
            labels=np.full(count, np.nan, np.float32),
            keys=np.zeros((count, 2), np.int64),
            batch_offsets=plan.batch_offsets[first : last + 1] - low,
            begin=epoch + first / total,
            end=epoch + last / total,
            pad_id=self.vocabulary.pad_id,
        )

    def plan(self, epoch: int) -> EpochPlan:
        """The plan of an epoch; the last one is cached."""
        if self._plan is None or self._plan[0] != epoch:
            self._plan = None
            self._plan = (epoch, self._make_plan(epoch))
        return self._plan[1]

    def _make_plan(self, epoch: int) -> EpochPlan:
        generator = text_order(self.seed, epoch)
        pool: list[Ints] = []
        num_parts = self.num_parts
        for number, (whole_file, weight) in enumerate(zip(self.files, self.weights, strict=True)):
            file, place = whole_file.part(epoch % num_parts, num_parts)
            whole, rest = divmod(weight, 1.0)
            for share in [1.0] * int(whole) + ([rest] if rest > 0 else []):
                segments = cut_segments(file, self.max_length, self.vocabulary, generator) + place
                chosen = segments[generator.random(len(segments)) < share]
                pool.append(np.concatenate([np.full((len(chosen), 1), number, np.int64), chosen], axis=1))
        every = np.concatenate(pool)
        return _plan_batches(every[generator.permutation(len(every))], self.batch_size * self.max_length, generator)

    def _pieces(self, segments: Ints) -> Pieces:
        """`[CLS] tokens [SEP]` rows."""
        lengths = segments[:, 2] - segments[:, 1]
        offsets = to_offsets(lengths + 2)
        ids = np.empty(int(offsets[-1]), np.int32)
        ids[offsets[:-1]] = self.vocabulary.cls_id
        ids[offsets[1:] - 1] = self.vocabulary.sep_id
        for number, file in enumerate(self.files):
            rows = np.flatnonzero(segments[:, 0] == number)
            places = ragged_ranges(offsets[rows] + 1, lengths[rows])
            ids[places] = file.ids[ragged_ranges(segments[rows, 1], lengths[rows])]
        return Pieces(ids, np.zeros(len(ids), np.uint8), offsets)


def cut_segments(
    file: TokenFile, max_length: int, vocabulary: Vocabulary, generator: np.random.Generator
) -> NDArray[np.int64]:
    """(segments, 2) start and end in `file.ids`: runs of whole sentences where the drawn limit allows."""
    ends = np.isin(file.ids, np.asarray(vocabulary.sentence_end_ids, np.int32))
    limits = np.asarray([max(int(share * max_length), 8) - 2 for share in SEGMENT_LIMITS])
    drawn = limits[generator.integers(0, len(limits), len(file.offsets) - 1)]
    segments: list[tuple[int, int]] = []
    for line in range(len(file.offsets) - 1):
        start, stop, limit = int(file.offsets[line]), int(file.offsets[line + 1]), int(drawn[line])
        while stop - start > limit:
            inside = np.flatnonzero(ends[start : start + limit])
            length = int(inside[-1]) + 1 if len(inside) else limit
            segments.append((start, start + length))
            start += length
        if stop > start:
            segments.append((start, stop))
    return np.asarray(segments, np.int64).reshape(-1, 2)


def round_up(number: Any, multiple: int) -> Any:
    """The next multiple of `multiple`, for integers and integer arrays."""
    return number + -number % multiple


def _plan_batches(segments: Ints, batch_tokens: int, generator: np.random.Generator) -> EpochPlan:
    """Sort by length in pools, cut into batches of at most `batch_tokens` with padding, shuffle the batches."""
    lengths = segments[:, 2] - segments[:, 1] + 2
    pool_of = np.cumsum(lengths) // (POOL_BATCHES * batch_tokens)
    segments = segments[np.lexsort((lengths, pool_of))]
    padded = round_up(segments[:, 2] - segments[:, 1] + 2, LENGTH_MULTIPLE)
    starts, longest = [0], 0
    for row, length in enumerate(padded.tolist()):
        longest = max(longest, length)
        if longest * (row - starts[-1] + 1) > batch_tokens and row > starts[-1]:
            starts.append(row)
            longest = length
    if not len(segments):
        return EpochPlan(segments=segments, batch_offsets=np.zeros(1, np.int64))
    first = np.asarray(starts, np.int64)
    sizes = np.diff(np.append(first, len(segments)))
    order = generator.permutation(len(sizes))
    rows = ragged_ranges(first[order], sizes[order])
    return EpochPlan(segments=segments[rows], batch_offsets=to_offsets(sizes[order]))
