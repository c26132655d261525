"""Inputs for comparing or timing two models: real texts if a file is named, random tokens otherwise."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.errors import InputError, UsageError
from shared.inputs.dialect import text_encoding
from shared.inputs.options import from_config
from shared.inputs.rows import SourceRow
from shared.inputs.sources import open_source
from shared.inputs.table_files import SUFFIXES
from shared.storage.foreign_files import START_BYTES
from trainer.export.config import TextsConfig

LINE_FILES = {".txt": open, ".gz": gzip.open, ".xz": lzma.open}

Texts = list[tuple[str, str | None]]


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """Token ids of one text or text pair, special tokens included, and the segment (0 or 1) of each."""

    ids: Sequence[int]
    segments: Sequence[int]


def read_texts(config: TextsConfig, limit: int) -> Texts:
    """The first `limit` texts or text pairs of --data. Raises InputError, UsageError."""
    if config.data is None:
        raise UsageError("no texts: pass a file with --data")
    if Path(config.data).suffix in LINE_FILES and not config.data.lower().endswith(SUFFIXES):
        texts: Texts = [(line, None) for line in _lines(config.data, config.encoding, limit)]
    else:
        if config.task is None and not config.text_column:
            raise UsageError(
                f"--data {config.data} is a table: name its text column with --text-column, or pass --task"
            )
        source = open_source(from_config(config, input=(config.data,), limit=limit))
        texts = [(item.text_a, item.text_b) for item in source.rows() if isinstance(item, SourceRow)]
    if not texts:
        raise InputError(f"--data {config.data} contains no text")
    return texts


def _lines(path: str, encoding: str, limit: int) -> list[str]:
    """The first lines with text. Raises InputError, UsageError."""
    opener: Any = LINE_FILES[Path(path).suffix]
    lines: list[str] = []
    codec = encoding
    try:
        with opener(path, "rb") as file:
            codec = text_encoding(path, file.read(START_BYTES), encoding)
        with opener(path, "rt", encoding=codec, newline="\n") as file:
            for line in file:
                if text := str(line).strip():
                    lines.append(text)
                if len(lines) == limit:
                    break
    except UnicodeError as error:
        raise InputError(
            f"--data {path} is not valid {codec.removesuffix('-sig')}; name its encoding with --encoding"
        ) from error
    except (OSError, lzma.LZMAError, EOFError) as error:
        raise InputError(f"--data {path}: {getattr(error, 'strerror', None) or error}") from error
    return lines


def encode_texts(tokenizer: Any, texts: Texts, max_length: int) -> list[EncodedRow]:
    """Tokenize, truncated to `max_length` tokens (the longer text of a pair first)."""
    pairs = [second for _, second in texts if second is not None]
    encoded = tokenizer(
        [first for first, _ in texts],
        pairs or None,
        truncation="longest_first" if pairs else True,
        max_length=max_length,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=True,
    )
    return [EncodedRow(*row) for row in zip(encoded["input_ids"], encoded["token_type_ids"], strict=True)]


def random_rows(tokenizer: Any, count: int, shortest: int, longest: int, seed: int) -> list[EncodedRow]:
    """`count` rows of random tokens between the special ones, each `shortest` to `longest` tokens long in all."""
    generator = np.random.Generator(np.random.Philox(key=[seed, 0]))
    special = set(tokenizer.all_special_ids)
    ordinary = np.asarray([index for index in tokenizer.get_vocab().values() if index not in special], np.int64)
    ordinary.sort()
    begin = [index for index in (tokenizer.cls_token_id,) if index is not None]
    end = [index for index in (tokenizer.sep_token_id,) if index is not None]
    rows = []
    for length in generator.integers(shortest, longest + 1, count).tolist():
        inner = ordinary[generator.integers(0, len(ordinary), max(length - len(begin) - len(end), 1))]
        ids = [*begin, *inner.tolist(), *end]
        rows.append(EncodedRow(ids, [0] * len(ids)))
    return rows


def pad_rows(rows: Sequence[EncodedRow], tokenizer: Any) -> dict[str, NDArray[np.int64]]:
    """`input_ids`, `attention_mask` and, if the model takes them, `token_type_ids`, each (rows, longest) int64."""
    width = max(len(row.ids) for row in rows)
    shape = (len(rows), width)
    arrays = {
        "input_ids": np.full(shape, tokenizer.pad_token_id or 0, np.int64),
        "attention_mask": np.zeros(shape, np.int64),
        "token_type_ids": np.zeros(shape, np.int64),
    }
    for number, row in enumerate(rows):
        arrays["input_ids"][number, : len(row.ids)] = row.ids
        arrays["attention_mask"][number, : len(row.ids)] = 1
        arrays["token_type_ids"][number, : len(row.ids)] = row.segments
    return {name: arrays[name] for name in input_names(tokenizer)}


def input_names(tokenizer: Any) -> tuple[str, ...]:
    """Names of the model's inputs, in order."""
    known = ("input_ids", "attention_mask", "token_type_ids")
    return tuple(name for name in known if name in tokenizer.model_input_names)
