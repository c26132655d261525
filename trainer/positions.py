"""How many tokens a model of any architecture accepts."""

from __future__ import annotations

from typing import Any

from shared import positions


def longest_input(model: Any, tokenizer: Any) -> int:
    """Length of the longest input that the model and its tokenizer accept, in tokens."""
    return min(positions.longest_input(model), int(tokenizer.model_max_length))
