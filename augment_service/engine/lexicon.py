"""What the engine must know of a masked LM besides its weights: how it splits, names and frames pieces, and its window.

Small and picklable, so that a process without the model can prepare its inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from augment_service.engine.vocabulary import Vocabulary, read_vocabulary
from augment_service.engine.words import WordSplitter


@dataclass(frozen=True)
class Lexicon:
    """`tokenizer`: a fast tokenizer of transformers; the ids of [CLS], [SEP] and [MASK]; `max_length`: pieces that an
    input may have, with those."""

    tokenizer: Any
    cls_id: int
    sep_id: int
    mask_id: int
    max_length: int

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What the tokenizer's ids mean."""
        return read_vocabulary(self.tokenizer)

    @cached_property
    def splitter(self) -> WordSplitter:
        """Splits texts into words and pieces."""
        return WordSplitter(self.tokenizer)
