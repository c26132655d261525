"""The lines of a corpus, from text files and tables, and which of them are held out for evaluation."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from shared.errors import InputError
from shared.inputs.dialect import text_encoding
from shared.inputs.options import InputOptions
from shared.inputs.rows import QuarantinedRow
from shared.inputs.sources import open_source
from shared.inputs.table_files import COMPRESSED, KINDS, open_table
from shared.storage.input_files import sha256_of

logger = logging.getLogger(__name__)

SAMPLE_BYTES = 1 << 16
SENTENCE_ENDS = (".", "!", "?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What batching needs to know about the tokenizer."""

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


def corpus_digests(paths: Iterable[str]) -> dict[str, str]:
    """sha256 of each corpus file. Raises InputError, StoreError."""
    try:
        return {path: sha256_of(path) for path in paths}
    except InputError as error:
        raise InputError(f"--corpus {error}") from error


def read_lines(path: str, encoding: str = "auto", text_column: str | None = None) -> Iterator[str]:
    """Non-empty lines of a text file or of the texts of a table, stripped. Raises InputError naming file and line.

    TSV and CSV are tables if `text_column` is given, else text; JSON, Parquet and Arrow always are, by default with the
    column `text`. All may be compressed. Bytes that `encoding` cannot decode are an error, never replaced.
    """
    try:
        kind = _table_kind(path)
        if kind in ("jsonl", "parquet", "arrow") or (kind and text_column is not None):
            yield from _lines_of_table(path, encoding, text_column or "text")
        else:
            yield from _lines_of_text(path, encoding)
    except InputError as error:
        raise InputError(f"--corpus {error}") from error


def _table_kind(path: str) -> str | None:
    names = [PurePosixPath(path)]
    if names[0].suffix.lower() in COMPRESSED:
        names.append(PurePosixPath(names[0].stem))
    return KINDS.get(names[-1].suffix.lower())


def _lines_of_text(path: str, encoding: str) -> Iterator[str]:
    with open_table(path) as binary:
        codec = text_encoding(path, binary.read(SAMPLE_BYTES), encoding)
    number = 0
    with open_table(path) as binary:
        try:
            with io.TextIOWrapper(binary, codec, errors="surrogateescape", newline="\n") as lines:
                for line in lines:
                    number += 1
                    if not line.isascii() and (bad := next((one for one in line if "\udc80" <= one <= "\udcff"), "")):
                        raise _undecodable(path, number, codec, f"byte 0x{ord(bad) - 0xDC00:02x}")
                    if text := line.strip():
                        yield text
        except UnicodeError as error:
            raise _undecodable(path, number + 1, codec, str(getattr(error, "reason", error))) from error


def _undecodable(path: str, number: int, codec: str, what: str) -> InputError:
    name = "UTF-8" if codec.startswith("utf-8") else codec
    return InputError(
        f"{path} line {number}: not {name} ({what}); name the file's encoding with --encoding, such as cp1252 or "
        "gb18030, or convert the file"
    )


def _lines_of_table(path: str, encoding: str, text_column: str) -> Iterator[str]:
    options = InputOptions(input=(path,), text_column=(text_column,), encoding=encoding, max_characters=1 << 40)
    num_used, refused = 0, list[QuarantinedRow]()
    for row in open_source(options).rows():
        if isinstance(row, QuarantinedRow):
            refused.append(row)
            continue
        num_used += 1
        yield from (text for line in row.text_a.split("\n") if (text := line.strip()))
    if refused:
        first = f"{refused[0].where}: {refused[0].reason}"
        if len(refused) > num_used:
            raise InputError(
                f"{path}: {len(refused)} of {len(refused) + num_used} rows cannot be used, for example {first}"
            )
        logger.warning("rows_left_out", extra={"fields": {"count": len(refused), "first": first}})


def is_held_out(text: str, share: float) -> bool:
    """Whether a line is held out for evaluation. Decided by hash, so it does not depend on order or machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") < share * 2.0**64
