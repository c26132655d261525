"""Text and kind of the entries of a tokenizer's vocabulary, taken from the tokenizer, not from a `##` prefix."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.errors import ModelError

_UNUSED = re.compile(r"\[unused\d+\]|<unused\d+>|madeupword\d+|<extra_id_\d+>|\|\|\|[A-Z_]+\|\|\|")
_METASPACE = "▁"


@dataclass(frozen=True)
class Vocabulary:
    """Per vocabulary id: `surfaces`, its text, and whether it is a continuation (as in `##ing`) or special."""

    surfaces: tuple[str, ...]
    is_continuation: NDArray[np.bool_]
    is_special: NDArray[np.bool_]

    @cached_property
    def is_usable_after_ranking(self) -> NDArray[np.bool_]:
        """Filter `reference`: all entries except continuations and empty ones."""
        is_text = np.asarray([bool(surface) for surface in self.surfaces], np.bool_)
        return np.logical_and(~self.is_continuation, is_text)

    @cached_property
    def is_whole_word(self) -> NDArray[np.bool_]:
        """Filter `whole-words`: excludes continuations, special and unused entries, and punctuation."""
        words = np.asarray([is_word(surface) for surface in self.surfaces])
        return words & ~self.is_continuation & ~self.is_special


def is_word(surface: str) -> bool:
    """Whether a text is a word of letters, marks and digits, not punctuation, a symbol or an unused entry."""
    if not surface or _UNUSED.fullmatch(surface):
        return False
    return all(unicodedata.category(letter)[0] in "LMN" or letter in "'’-" for letter in surface) and any(
        unicodedata.category(letter)[0] in "LN" for letter in surface
    )


def read_vocabulary(tokenizer: Any) -> Vocabulary:
    """The vocabulary of a fast tokenizer. Raises ModelError for a slow one."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(
            "the tokenizer has no fast version (tokenizer.json or vocab.txt), which is needed for character offsets"
        )
    size = max(backend.get_vocab(with_added_tokens=True).values()) + 1
    pieces = [backend.id_to_token(index) or "" for index in range(size)]
    special = np.zeros(size, np.bool_)
    special[[index for index in tokenizer.all_special_ids if index is not None]] = True
    kind = type(backend.model).__name__
    if kind == "WordPiece":
        prefix = backend.model.continuing_subword_prefix
        continues = np.asarray([piece.startswith(prefix) for piece in pieces])
        return Vocabulary(tuple(pieces), continues, special)
    if uses_byte_level(backend):
        surfaces = [_decode_bytes(piece) for piece in pieces]
        starts = np.asarray([surface.startswith(" ") for surface in surfaces])
        return Vocabulary(tuple(surface.strip() for surface in surfaces), ~starts & ~special, special)
    starts = np.asarray([piece.startswith(_METASPACE) for piece in pieces])
    return Vocabulary(tuple(piece.replace(_METASPACE, " ").strip() for piece in pieces), ~starts & ~special, special)


def uses_byte_level(backend: Any) -> bool:
    """Whether tokens are bytes encoded as letters (RoBERTa, ModernBERT)."""
    return "ByteLevel" in str(backend.decoder or "") or "ByteLevel" in str(backend.pre_tokenizer or "")


def _byte_alphabet() -> dict[str, int]:
    """The letter that GPT-2's byte-level BPE uses for each of the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {chr(byte): byte for byte in plain}
    others = [byte for byte in range(256) if byte not in plain]
    return letters | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTES = _byte_alphabet()


def _decode_bytes(piece: str) -> str:
    """The text of a byte-level token; empty if its bytes are not valid UTF-8."""
    try:
        return bytes(_BYTES[letter] for letter in piece).decode("utf-8")
    except (KeyError, UnicodeDecodeError):
        return ""
