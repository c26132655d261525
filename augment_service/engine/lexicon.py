"""Everything that the engine needs from a masked LM except weights: tokenizer, special tokens, maximum input length.

Small and picklable, so that a process without the model can prepare its inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from augment_service.engine.vocabulary import Vocabulary, read_vocabulary
from augment_service.engine.words import WordSplitter


@dataclass(frozen=True)
class Lexicon:
    """A fast transformers tokenizer, its ids of [CLS], [SEP] and [MASK], and `max_length`: the maximum number of tokens
    of an input, including special tokens."""

    tokenizer: Any
    cls_id: int
    sep_id: int
    mask_id: int
    max_length: int

    def __getstate__(self) -> dict[str, Any]:
        """Without the splitter: a pickled tokenizer forgets that special tokens within a text are text."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Text and kind of each vocabulary entry."""
        return read_vocabulary(self.tokenizer)

    @cached_property
    def splitter(self) -> WordSplitter:
        """Splits texts into words and their tokens."""
        return WordSplitter(self.tokenizer)
