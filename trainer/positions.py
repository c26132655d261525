"""How many tokens a model of any architecture accepts."""

from __future__ import annotations

from typing import Any

_AFTER_PADDING = ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "roberta-prelayernorm")


def longest_input(model_config: Any, tokenizer: Any) -> int:
    """Length of the longest input that the model accepts, in tokens."""
    positions = int(getattr(model_config, "max_position_embeddings", 0) or 512)
    # RoBERTa's positions start after the padding id.
    if model_config.model_type in _AFTER_PADDING:
        positions -= int(model_config.pad_token_id) + 1
    return min(positions, int(tokenizer.model_max_length))
