"""Text files -> packed piece ids, training sequences, batches and masks; all a function of (corpus, seed, step).

A sequence is a run of whole sentences of one line, as long as a drawn limit allows: the model must serve single short
sentences as well as passages. Batches hold sequences of nearly equal length under a token budget, so that almost
nothing is padding, and no sequence sees its neighbour. Masks are drawn from a counter (seed, step): a resumed run
needs no random state.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import lzma
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.errors import InputError

logger = logging.getLogger(__name__)

SENTENCE_ENDS = (".", "!", "?")
SEGMENT_LIMITS = (0.25, 0.5, 1.0, 1.0)
"""Shares of the longest length that a line may be cut to, one drawn per line."""
WINDOW_BATCHES = 64
"""Sequences of this many batches are sorted by length together."""
IGNORED = -100
LENGTH_MULTIPLE, ASKED_MULTIPLE = 4, 64
"""oneDNN compiles a product for each of its shapes and keeps a thousand: batches are as long as the first says, and ask
for as many pieces as the second says, the rest of which count nothing."""


@dataclass(frozen=True, slots=True)
class TokenFile:
    """Piece ids of the kept lines of one file: `ids` (pieces,) int32, line i at `offsets[i]:offsets[i + 1]`."""

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What batching needs to know of the tokenizer."""

    size: int
    cls_id: int
    sep_id: int
    pad_id: int
    mask_id: int
    sentence_end_ids: tuple[int, ...]
    first_word_id: int

    @classmethod
    def of(cls, tokenizer: Any) -> Vocabulary:
        """Of a BERT tokenizer."""
        pieces = tokenizer.get_vocab()
        unused = [index for piece, index in pieces.items() if piece.startswith("[")]
        return cls(
            size=len(tokenizer),
            cls_id=tokenizer.cls_token_id,
            sep_id=tokenizer.sep_token_id,
            pad_id=tokenizer.pad_token_id,
            mask_id=tokenizer.mask_token_id,
            sentence_end_ids=tuple(pieces[end] for end in SENTENCE_ENDS if end in pieces),
            first_word_id=max(unused, default=-1) + 1,
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's input. ids: (B, L) int64; lengths: (B,) int64 pieces of each row that are no padding.

    positions, labels: (P,) int64, places in the flattened ids and the pieces that stood there, IGNORED where the place
    only fills up.
    """

    ids: NDArray[np.int64]
    lengths: NDArray[np.int64]
    positions: NDArray[np.int64]
    labels: NDArray[np.int64]

    @property
    def num_tokens(self) -> int:
        """Pieces without padding."""
        return int(self.lengths.sum())


def read_lines(path: str) -> Iterator[str]:
    """Lines of a text, .gz or .xz file. Raises InputError naming the file."""
    opener: Any = {".xz": lzma.open, ".gz": gzip.open}.get(Path(path).suffix, open)
    try:
        with opener(path, "rt", encoding="utf-8", errors="replace", newline="\n") as file:
            for line in file:
                if text := str(line).strip():
                    yield text
    except (OSError, lzma.LZMAError, EOFError) as error:
        raise InputError(f"--corpus {path}: {getattr(error, 'strerror', None) or error}") from error


def is_held_out(text: str, share: float) -> bool:
    """Whether a line is kept for evaluation: by hash, hence the same on every machine and for every order."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") < share * 2.0**64


def split_lines(path: str, held_out: float) -> tuple[list[str], list[str]]:
    """Training lines and held-out lines of a file."""
    train: list[str] = []
    dev: list[str] = []
    for text in read_lines(path):
        (dev if is_held_out(text, held_out) else train).append(text)
    if not train:
        raise InputError(f"--corpus {path} holds no text")
    return train, dev


def tokenize(lines: Sequence[str], tokenizer: Any, chunk: int = 2048) -> TokenFile:
    """Piece ids of `lines`, without special pieces."""
    parts: list[NDArray[np.int32]] = []
    lengths: list[int] = []
    for start in range(0, len(lines), chunk):
        encoded = tokenizer(
            list(lines[start : start + chunk]), add_special_tokens=False, truncation=False, verbose=False
        )["input_ids"]
        lengths += [len(ids) for ids in encoded]
        parts += [np.asarray(ids, np.int32) for ids in encoded]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return TokenFile(np.concatenate(parts) if parts else np.zeros(0, np.int32), offsets)


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


def epoch_batches(
    files: Sequence[TokenFile],
    weights: Sequence[float],
    max_length: int,
    batch_tokens: int,
    vocabulary: Vocabulary,
    seed: int,
    epoch: int,
) -> list[list[tuple[int, int, int]]]:
    """Batches of one epoch, each a list of (file, start, end); a pure function of its arguments."""
    generator = np.random.Generator(np.random.Philox(key=[seed, 2 * epoch]))
    pool: list[NDArray[np.int64]] = []
    for number, (file, weight) in enumerate(zip(files, weights, strict=True)):
        whole, part = divmod(weight, 1.0)
        for share in [1.0] * int(whole) + ([part] if part > 0 else []):
            segments = cut_segments(file, max_length, vocabulary, generator)
            chosen = segments[generator.random(len(segments)) < share]
            pool.append(np.concatenate([np.full((len(chosen), 1), number, np.int64), chosen], axis=1))
    every = np.concatenate(pool)
    every = every[generator.permutation(len(every))]
    lengths = every[:, 2] - every[:, 1] + 2
    window_of = np.cumsum(lengths) // (WINDOW_BATCHES * batch_tokens)
    every = every[np.lexsort((lengths, window_of))]
    lengths = every[:, 2] - every[:, 1] + 2
    batches: list[list[tuple[int, int, int]]] = []
    current: list[tuple[int, int, int]] = []
    longest = 0
    lengths = _filled(lengths, LENGTH_MULTIPLE)
    for (number, start, end), length in zip(every.tolist(), lengths.tolist(), strict=True):
        if current and (max(longest, length) * (len(current) + 1) > batch_tokens):
            batches.append(current)
            current, longest = [], 0
        current.append((number, start, end))
        longest = max(longest, length)
    batches.append(current)
    return [batches[index] for index in generator.permutation(len(batches))]


def make_batch(
    files: Sequence[TokenFile],
    rows: Sequence[tuple[int, int, int]],
    vocabulary: Vocabulary,
    max_length: int,
    mask_probability: float,
    seed: int,
    step: int,
) -> Batch:
    """`[CLS] pieces [SEP]` rows with masks drawn from (seed, step): 80% [MASK], 10% a random piece, 10% kept."""
    generator = np.random.Generator(np.random.Philox(key=[seed, 2 * step + 1]))
    lengths = np.asarray([end - start + 2 for _, start, end in rows], np.int64)
    width = min(int(_filled(lengths.max(), LENGTH_MULTIPLE)), max_length)
    ids = np.full((len(rows), width), vocabulary.pad_id, np.int64)
    for row, (number, start, end) in enumerate(rows):
        ids[row, 0] = vocabulary.cls_id
        ids[row, 1 : end - start + 1] = files[number].ids[start:end]
        ids[row, end - start + 1] = vocabulary.sep_id
    is_piece = np.arange(ids.shape[1])[None, :] < lengths[:, None]
    is_piece &= (ids != vocabulary.cls_id) & (ids != vocabulary.sep_id)
    chosen = is_piece & (generator.random(ids.shape) < mask_probability)
    positions = np.flatnonzero(chosen)
    labels = ids.reshape(-1)[positions]
    missing = -len(positions) % ASKED_MULTIPLE if len(positions) else 0
    action = generator.random(ids.shape)
    random_ids = generator.integers(vocabulary.first_word_id, vocabulary.size, ids.shape)
    ids = np.where(chosen & (action < 0.8), vocabulary.mask_id, ids)
    ids = np.where(chosen & (action >= 0.8) & (action < 0.9), random_ids, ids)
    return Batch(ids, lengths, np.pad(positions, (0, missing)), np.pad(labels, (0, missing), constant_values=IGNORED))


def _filled(number: Any, multiple: int) -> Any:
    return number + -number % multiple
