"""The default number of tokens per model batch; on a GPU, which small batches leave idle, it is measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from augment_service.engine.augment import DEFAULT_BATCH_TOKENS
from augment_service.engine.batches import ModelInput
from augment_service.engine.masked_lm import MaskedLM

SIZES = (1024, 2048, 4096, 8192, 16384, 32768, 65536)
AS_GOOD = 0.97
"""A size within 3% of the best is as good, and takes less memory."""
WORSE = 0.8
"""Once a size reaches only this share of the best rate, larger ones are not tried: the rate only falls from there."""
LENGTH, RANKED, ROUNDS = 32, 16, 4


def resolve_batch_tokens(asked: int | None, masked_lm: MaskedLM) -> int:
    """`asked`, or if None the default on a CPU and the smallest size with full throughput on a GPU."""
    if asked is not None:
        return asked
    if masked_lm.device == "cpu":
        return DEFAULT_BATCH_TOKENS
    return best_size(partial(tokens_per_second, masked_lm))


def best_size(rate: Callable[[int], float], sizes: Sequence[int] = SIZES) -> int:
    """The smallest of the ascending `sizes` that is as good as the best.

    rate: tokens per second with batches of this many tokens; 0 if memory ran out.
    """
    rates: dict[int, float] = {}
    for size in sizes:
        rates[size] = rate(size)
        if rates[size] <= WORSE * max(rates.values()):
            break
    best = max(rates.values())
    return next(size for size in rates if rates[size] >= AS_GOOD * best)


def tokens_per_second(masked_lm: MaskedLM, batch_tokens: int, rounds: int = ROUNDS) -> float:
    """The best of some rounds of one batch of short inputs; 0 if memory ran out."""
    length = min(LENGTH, masked_lm.max_length)
    inputs = [ModelInput((masked_lm.lexicon.mask_id,) * length, (1,), length)] * max(batch_tokens // length, 1)
    fastest = float("inf")
    with masked_lm.uncounted() as guard:
        for _ in range(rounds):
            began = time.perf_counter()
            # Ends with the scores on the host, so there is nothing left to synchronise.
            masked_lm.rank(inputs, [range(len(inputs))], RANKED, None)
            seconds = time.perf_counter() - began
            if guard.halved:
                return 0.0
            fastest = min(fastest, seconds)
    return length * len(inputs) / fastest
