"""A model's maximum input length, taken from its position table, not from its name."""

from __future__ import annotations

from typing import Any

_NAMES = ("position_embeddings", "embed_positions")
_LONGEST = ("max_position_embeddings", "n_positions", "max_seq_len")
DEFAULT = 512


def longest_input(model: Any) -> int:
    """Tokens of the longest input, special tokens included: rows of the position table minus its offset."""
    stated = [int(value) for name in _LONGEST if (value := getattr(model.config, name, None))]
    table = _position_table(model)
    if table is None or getattr(model.config, "position_embedding_type", "absolute") not in ("absolute", None):
        return min(stated, default=DEFAULT)
    return int(min([*stated, int(table.weight.shape[0]) - position_offset(model)]))


def position_offset(model: Any) -> int:
    """Row of the first token's position. Tables of the RoBERTa family start after a row for padding."""
    table = _position_table(model)
    if table is None:
        return 0
    padding = getattr(table, "padding_idx", None)
    if padding is not None:
        return int(padding) + 1
    # BART's table has its own offset; others shift their position ids.
    offset = getattr(table, "offset", None)
    if offset is not None:
        return int(offset)
    kept = getattr(getattr(model.base_model, "embeddings", None), "position_ids", None)
    return int(kept.flatten()[0]) if kept is not None and kept.numel() else 0


def _position_table(model: Any) -> Any:
    """The position embedding, a module with a weight; None if positions are relative or rotary."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in _NAMES and getattr(module, "weight", None) is not None:
            return module
    return None
