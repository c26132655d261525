"""Text files -> token ids, one array per file, with the lines kept for evaluation set apart."""

from __future__ import annotations

import gzip
import hashlib
import lzma
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.errors import InputError
from trainer.data.batches import to_offsets

SENTENCE_ENDS = (".", "!", "?")
TOKENIZE_LINES = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFile:
    """Token ids of the kept lines of one file: line i is `ids[offsets[i]:offsets[i + 1]]`.

    ids: (tokens,) int32, without special tokens; offsets: (lines + 1,) int64.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What batching must know about the tokenizer."""

    size: int
    cls_id: int
    sep_id: int
    pad_id: int
    mask_id: int
    sentence_end_ids: tuple[int, ...]
    first_word_id: int

    @classmethod
    def of(cls, tokenizer: Any) -> Vocabulary:
        """The vocabulary of a BERT tokenizer."""
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


def read_lines(path: str) -> Iterator[str]:
    """Non-empty lines of a text, .gz or .xz file, stripped. Raises InputError naming the file."""
    opener: Any = {".xz": lzma.open, ".gz": gzip.open}.get(Path(path).suffix, open)
    try:
        with opener(path, "rt", encoding="utf-8", errors="replace", newline="\n") as file:
            for line in file:
                if text := str(line).strip():
                    yield text
    except (OSError, lzma.LZMAError, EOFError) as error:
        raise InputError(f"--corpus {path}: {getattr(error, 'strerror', None) or error}") from error


def split_lines(path: str, held_out: float) -> tuple[list[str], list[str]]:
    """Training lines and held-out lines of a file. Raises InputError when it has no training lines."""
    train: list[str] = []
    dev: list[str] = []
    for text in read_lines(path):
        (dev if is_held_out(text, held_out) else train).append(text)
    if not train:
        raise InputError(f"--corpus {path} contains no text to train on")
    return train, dev


def is_held_out(text: str, share: float) -> bool:
    """Whether a line is kept for evaluation. Decided by hash, so it does not depend on order or machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") < share * 2.0**64


def tokenize_lines(lines: Sequence[str], tokenizer: Any) -> TokenFile:
    """Token ids of `lines`, without special tokens and without truncation."""
    parts: list[NDArray[np.int32]] = []
    lengths: list[int] = []
    for start in range(0, len(lines), TOKENIZE_LINES):
        encoded = tokenizer(
            list(lines[start : start + TOKENIZE_LINES]), add_special_tokens=False, truncation=False, verbose=False
        )["input_ids"]
        lengths += [len(ids) for ids in encoded]
        parts += [np.asarray(ids, np.int32) for ids in encoded]
    ids = np.concatenate(parts) if parts else np.zeros(0, np.int32)
    return TokenFile(ids=ids, offsets=to_offsets(lengths))
