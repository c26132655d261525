"""A slow, plain implementation of candidate generation: one masked word at a time, all logits, full sort."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from augment_service.engine.augment import AugmentEngine
from augment_service.engine.words import Word


@torch.no_grad()
def ranked_entries(
    model: Any, tokenizer: Any, words: tuple[Word, ...], index: int, context: str
) -> list[tuple[int, float]]:
    """All vocabulary entries with their logits for word `index`, best first, ties by id. The text must be short."""
    token_ids = [token for word in words for token in word.piece_ids]
    place = sum(len(word.piece_ids) for word in words[:index])
    cls, sep, mask = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id
    masked = list(token_ids)
    if context != "unmasked":
        masked[place] = mask
    ids, segments = [cls, *masked, sep], [0] * (len(masked) + 2)
    if context == "pair":
        ids, segments = [*ids, *token_ids, sep], segments + [1] * (len(token_ids) + 1)
    options = {}
    if getattr(model.config, "type_vocab_size", 0) > 1:
        options["token_type_ids"] = torch.tensor([segments])
    logits = model(input_ids=torch.tensor([ids]), **options).logits[0, place + 1].float().numpy()
    order = np.lexsort((np.arange(len(logits)), -logits))
    return [(int(one), float(logits[one])) for one in order]


def expected_candidates(engine: AugmentEngine, model: Any, words: tuple[Word, ...], index: int) -> list[str]:
    """Candidate words of the specification, from the full ranking."""
    params, vocabulary = engine.params, engine.vocabulary
    word = words[index]
    ranking = ranked_entries(model, engine.lexicon.tokenizer, words, index, params.context)
    chosen = []
    for entry, _ in ranking:
        surface = vocabulary.surfaces[entry]
        is_own = entry == word.piece_ids[0] or surface == word.text
        if params.filter == "whole-words" and (not vocabulary.is_whole_word[entry] or is_own):
            continue
        if params.context == "unmasked" and is_own:
            continue
        chosen.append(entry)
    kept = [entry for entry in chosen[: params.k] if not vocabulary.is_continuation[entry]]
    return list(dict.fromkeys(vocabulary.surfaces[entry] for entry in kept if vocabulary.surfaces[entry]))
