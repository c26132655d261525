"""Answers of models that do not exist: functions of the question alone, awkward on purpose."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from augment_service.engine.batches import ModelInput, Ranking
from augment_service.engine.proposer import Answer, Ask, Found, Nearest, Steps


def run_steps(steps: Steps[Found], vocab_size: int) -> Found:
    """Run steps to their end with such answers."""
    answer = None
    try:
        while True:
            ask = next(steps) if answer is None else steps.send(answer)
            answer = Answer(
                [_ranking(one, ask, vocab_size) for one in ask.inputs], _nearest(ask.words, ask.num_nearest)
            )
    except StopIteration as finished:
        found: Found = finished.value
        return found


def _ranking(one: ModelInput, ask: Ask, vocab_size: int) -> Ranking:
    """Entries in any order, some beyond the tokenizer's, the word itself often among them; scores with -inf at last."""
    rng = random.Random(repr(one))
    ids = []
    for _ in one.positions:
        own = rng.choice(one.ids)
        row = [own, *rng.sample([entry for entry in range(vocab_size + 3) if entry != own], ask.num_ranked - 1)]
        rng.shuffle(row)
        ids.append(row)
    scores = np.sort(np.asarray([[rng.uniform(-9, 9) for _ in row] for row in ids], np.float32))[:, ::-1].copy()
    if ask.whole_words:
        scores[:, rng.randrange(1, ask.num_ranked + 1) :] = -np.inf
    return Ranking(np.asarray(ids, np.int64), scores)


def _nearest(words: Sequence[str], count: int) -> Nearest:
    """Neighbours of about two words in three; some differ only in their case."""
    found: Nearest = {}
    for word in words:
        rng = random.Random(word)
        pool = ["Film", "film", "FILM", "plot", "plots", "Äußerung", "usa", "USA", "new york", "e-mail", word.upper()]
        near = rng.sample(pool, min(count, rng.randrange(len(pool)))) if rng.random() < 0.7 else []
        found[word] = tuple((one, 0.9 - 0.01 * place) for place, one in enumerate(near))
    return found
