"""Single segments and pairs of segments from plain text, half of each, for general distillation.

A student that later compares two texts must see two texts while it learns from the pre-trained teacher. Blocks of lines
alternate between the two forms from epoch to epoch, so every text is read once per epoch and in both forms over two
epochs. A pair holds neighbouring segments, or two segments that share a rare token; segments that share none are paired
at random. The plan of an epoch is a pure function of (files, weights, seed, epoch).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trainer.data.batches import Pieces, Window
from trainer.data.corpus import Vocabulary
from trainer.data.token_file import TokenFile, num_parts_of

WINDOW_BATCHES = 64
"""Batches that are prepared at once; their rows are sorted by length together."""
BLOCK_LINES = 8
"""Lines that take the same form, so that neighbouring segments of short lines are neighbours in the text."""
SINGLE_LIMITS = (0.25, 0.5, 1.0, 1.0)
PAIR_LIMITS = (0.15, 0.3, 0.5)
"""Shares of the longest sequence that one segment may fill; one is drawn for each line."""
WIDTH_MULTIPLE = 8
"""Keeps the number of batch shapes small: oneDNN compiles a kernel for each."""
SINGLE, NEIGHBOURS, SHARED = 0, 1, 2

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Plan:
    """An epoch: `rows` (rows, 5) int64 hold file, start and end of the first segment, start and end of the second
    (equal for a single segment); batch b holds rows `offsets[b]:offsets[b + 1]`."""

    rows: Ints
    offsets: Ints

    @property
    def num_batches(self) -> int:
        """Batches of the epoch."""
        return len(self.offsets) - 1


@dataclass(slots=True, kw_only=True)
class SegmentSource:
    """A `WindowSource` of single segments and pairs. batch_size: sequences of `max_length` whose tokens fill a batch.

    pair_share: share of the blocks that take the form of pairs, 0 to 1. An epoch is one pass over the weighted corpus,
    or, of a large corpus, over one of its `num_parts` parts.
    """

    files: Sequence[TokenFile]
    weights: Sequence[float]
    vocabulary: Vocabulary
    max_length: int
    batch_size: int
    seed: int
    pair_share: float = 0.5
    _plan: tuple[int, Plan] | None = field(default=None, repr=False)
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
        first, last = window * WINDOW_BATCHES, min((window + 1) * WINDOW_BATCHES, plan.num_batches)
        offsets = plan.offsets[first : last + 1]
        rows = plan.rows[offsets[0] : offsets[-1]]
        return Window(
            pieces=self._read(rows),
            labels=np.full(len(rows), np.nan, np.float32),
            keys=np.zeros((len(rows), 2), np.int64),
            batch_offsets=offsets - offsets[0],
            begin=epoch + first / plan.num_batches,
            end=epoch + last / plan.num_batches,
            pad_id=self.vocabulary.pad_id,
        )

    def _read(self, rows: Ints) -> Pieces:
        """`[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`; the second segment and its [SEP] are of type 1."""
        cls, sep = [self.vocabulary.cls_id], [self.vocabulary.sep_id]
        ids: list[NDArray[np.int32]] = []
        types: list[NDArray[np.uint8]] = []
        for number, start_a, end_a, start_b, end_b in rows.tolist():
            text = self.files[number].ids
            parts = [cls, text[start_a:end_a], sep]
            second = end_b - start_b
            if second:
                parts += [text[start_b:end_b], sep]
            ids.append(np.concatenate(parts).astype(np.int32))
            types.append(np.zeros(len(ids[-1]), np.uint8))
            if second:
                types[-1][-(second + 1) :] = 1
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in ids])]).astype(np.int64)
        return Pieces(np.concatenate(ids), np.concatenate(types), offsets)

    def plan(self, epoch: int) -> Plan:
        """The plan of an epoch; the last one is cached."""
        if self._plan is None or self._plan[0] != epoch:
            self._plan = (epoch, plan_epoch(self, epoch))
        return self._plan[1]


def plan_epoch(source: SegmentSource, epoch: int) -> Plan:
    """Rows and batches of an epoch, in training order."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([source.seed, epoch])))
    pool = []
    num_parts = source.num_parts
    this_pass, index = divmod(epoch, num_parts)
    for number, (whole_file, weight) in enumerate(zip(source.files, source.weights, strict=True)):
        file, place = whole_file.part(index, num_parts)
        whole, rest = divmod(weight, 1.0)
        for passage, share in enumerate([1.0] * int(whole) + ([rest] if rest > 0 else [])):
            forms = _draw_forms(source, (number, index), this_pass + passage, file.num_lines)
            rows = _rows_of_file(file, forms, source.max_length, source.vocabulary, generator) + place
            rows = rows[generator.random(len(rows)) < share]
            pool.append(np.concatenate([np.full((len(rows), 1), number, np.int64), rows], axis=1))
    rows = np.concatenate(pool)
    return _cut_batches(rows[generator.permutation(len(rows))], source.batch_size * source.max_length, generator)


def cut_segments(file: TokenFile, lines: Ints, limits: Ints, vocabulary: Vocabulary) -> Ints:
    """(segments, 2) start and end in `file.ids`, in reading order; all of the text of `lines`, and nothing else.

    A segment is a run of whole sentences of at most `limits[i]` tokens; a longer sentence is cut.
    """
    ends = (np.flatnonzero(np.isin(file.ids, np.asarray(vocabulary.sentence_end_ids, np.int32))) + 1).tolist()
    segments: list[tuple[int, int]] = []
    bounds = zip(file.offsets[lines].tolist(), file.offsets[lines + 1].tolist(), limits.tolist(), strict=True)
    for start, stop, limit in bounds:
        while stop - start > limit:
            before = bisect_right(ends, start + limit)
            end = ends[before - 1] if before and ends[before - 1] > start else start + limit
            segments.append((start, end))
            start = end
        if stop > start:
            segments.append((start, stop))
    return np.asarray(segments, np.int64).reshape(-1, 2)


def pair_by_shared_token(file: TokenFile, segments: Ints, generator: np.random.Generator) -> Ints:
    """(pairs, 2) indices into `segments`, each at most once: two that share their rarest token in the file, then two
    of the rest that share the second rarest, then the rest at random. One segment is left when their number is odd."""
    first, second = _rarest_tokens(file, segments)
    order = np.lexsort((generator.random(len(segments)), second, first))
    pairs, rest = _pair_equal(first, order)
    more, rest = _pair_equal(second, rest[np.lexsort((generator.random(len(rest)), second[rest]))])
    rest = generator.permutation(rest)
    even = len(rest) - len(rest) % 2
    every = np.concatenate([pairs, more, rest[:even].reshape(-1, 2)])
    swapped = generator.random(len(every)) < 0.5
    return np.where(swapped[:, None], every[:, ::-1], every)


def _draw_forms(source: SegmentSource, lines: tuple[int, int], passage: int, num_lines: int) -> Ints:
    """SINGLE, NEIGHBOURS or SHARED for each line. A block that is single in one passage is paired in the next.

    lines: the file and the part of it that they are from.
    """
    number, part = lines
    of_part = [part] if part else []
    seeds = np.random.SeedSequence([source.seed, number, 1, *of_part])
    blocks = -(-num_lines // BLOCK_LINES)
    place = np.random.Generator(np.random.Philox(seeds)).random(blocks)
    place = (place + passage * source.pair_share) % 1.0
    kind = np.random.Generator(np.random.Philox(np.random.SeedSequence([source.seed, number, 2, passage, *of_part])))
    paired = np.where(kind.random(blocks) < 0.5, NEIGHBOURS, SHARED)
    return np.repeat(np.where(place < source.pair_share, paired, SINGLE), BLOCK_LINES)[:num_lines].astype(np.int64)


def _rows_of_file(
    file: TokenFile, forms: Ints, max_length: int, vocabulary: Vocabulary, generator: np.random.Generator
) -> Ints:
    """(rows, 4): start and end of the first and of the second segment."""
    rows = []
    for form in (SINGLE, NEIGHBOURS, SHARED):
        lines = np.flatnonzero(forms == form)
        if form == SINGLE:
            limits = np.asarray([max(int(share * max_length), 8) - 2 for share in SINGLE_LIMITS])
        else:
            limits = np.asarray([max(int(share * (max_length - 3)), 2) for share in PAIR_LIMITS])
        drawn = limits[generator.integers(0, len(limits), len(lines))]
        segments = cut_segments(file, lines, drawn, vocabulary)
        if form == SINGLE:
            pairs = np.zeros((0, 2), np.int64)
        elif form == NEIGHBOURS:
            pairs = np.arange(len(segments) - len(segments) % 2).reshape(-1, 2)
        else:
            pairs = pair_by_shared_token(file, segments, generator)
        alone = np.delete(np.arange(len(segments)), pairs.reshape(-1))
        rows.append(np.concatenate([segments[pairs[:, 0]], segments[pairs[:, 1]]], axis=1))
        rows.append(np.concatenate([segments[alone], np.zeros((len(alone), 2), np.int64)], axis=1))
    return np.concatenate(rows)


def _rarest_tokens(file: TokenFile, segments: Ints) -> tuple[Ints, Ints]:
    """Keys of each segment's rarest and second rarest token that occur at least twice in these segments."""
    lengths = segments[:, 1] - segments[:, 0]
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64) if len(segments) else lengths
    if not len(segments):
        return lengths, lengths
    ids = file.ids[np.arange(lengths.sum()) - np.repeat(starts - segments[:, 0], lengths)].astype(np.int64)
    counts = np.bincount(ids)[ids]
    never = np.iinfo(np.int64).max
    keys = np.where(counts >= 2, counts * (int(ids.max()) + 1) + ids, never)
    first = np.minimum.reduceat(keys, starts)
    second = np.minimum.reduceat(np.where(keys == np.repeat(first, lengths), never, keys), starts)
    return first, second


def _pair_equal(keys: Ints, order: Ints) -> tuple[Ints, Ints]:
    """Neighbours in `order` with equal keys, two by two, and the others in their order."""
    sorted_keys = keys[order]
    begins = np.concatenate([[True], sorted_keys[1:] != sorted_keys[:-1]]) if len(order) else np.zeros(0, bool)
    start = np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))
    is_second = (np.arange(len(order)) - start) % 2 == 1
    second = np.flatnonzero(is_second)
    pairs = np.stack([order[second - 1], order[second]], axis=1)
    is_paired = is_second.copy()
    is_paired[second - 1] = True
    return pairs, order[~is_paired]


def _cut_batches(rows: Ints, batch_tokens: int, generator: np.random.Generator) -> Plan:
    """Sort the rows of WINDOW_BATCHES batches by length, cut them under the token budget, shuffle the batches."""
    if not len(rows):
        return Plan(rows, np.zeros(1, np.int64))
    second = rows[:, 4] - rows[:, 3]
    lengths = rows[:, 2] - rows[:, 1] + 2 + second + (second > 0)
    order = np.lexsort((lengths, np.cumsum(lengths) // (WINDOW_BATCHES * batch_tokens)))
    widths = (lengths[order] + -lengths[order] % WIDTH_MULTIPLE).tolist()
    cuts, first, longest = [0], 0, 0
    for place, width in enumerate(widths):
        if place > first and max(longest, width) * (place - first + 1) > batch_tokens:
            cuts.append(place)
            first, longest = place, 0
        longest = max(longest, width)
    cuts.append(len(order))
    shuffled = generator.permutation(len(cuts) - 1)
    parts = [order[cuts[batch] : cuts[batch + 1]] for batch in shuffled]
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    return Plan(rows[np.concatenate(parts)], offsets)
