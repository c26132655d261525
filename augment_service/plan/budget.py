"""How a plan spends its seconds (pure arithmetic): what is measured when time is short, and how far off that may be.

A plan always measures a minimum, bounded by work and not by an option: without it, there would be nothing to scale up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

SPARE_SECONDS = 3.5
"""Seconds kept for the start of the interpreter and its imports, and for the end of the plan's processes."""
LEAST_CHARACTERS = 100_000
"""Text whose words are always counted, in whole shards; it takes less than a second."""
COUNT_SHARE, LENGTHS_SHARE = 0.35, 0.3
"""Shares of the seconds that are left: for the count, then for single lengths. All others are for rows."""
WARM_UP_ROWS, WARM_UP_CHARACTERS = 16, 4096
FIRST_ROWS, LEAST_BLOCKS = 32, 2
"""Rows of the first measured block; and blocks after the warm-up that are always measured, to see how they differ."""


def is_counted_enough(characters: int, shards: int, spent: float, seconds: float) -> bool:
    """Whether to count no further shard: these took `spent` seconds, and another would take longer than `seconds`."""
    return characters >= LEAST_CHARACTERS and spent + spent / shards > seconds


def warm_up_rows(characters: Sequence[int]) -> int:
    """Rows that warm up, from the number of characters of each: 16, or fewer long ones, at least one."""
    total = 0
    for count, one in enumerate(characters[:WARM_UP_ROWS], start=1):
        total += one
        if total >= WARM_UP_CHARACTERS:
            return count
    return min(len(characters), WARM_UP_ROWS)


def next_block(done: Sequence[tuple[int, float]], seconds: float) -> int:
    """Rows of the next block, which fits into the time that is left; 0 to end.

    done: (rows, seconds) of the blocks so far, the warm-up first; seconds: for all of them together. The blocks that
    are always measured are as small as the warm-up when time is short.
    """
    rows, last_seconds = done[-1]
    wanted, least = FIRST_ROWS << max(len(done) - LEAST_BLOCKS, 0), done[0][0]
    left = seconds - sum(one for _, one in done)
    fitting = int(max(left, 0.0) * rows / last_seconds) if last_seconds > 0 else wanted
    # Room for the blocks after this one that are always measured.
    fitting -= max(LEAST_BLOCKS - len(done), 0) * least
    if len(done) <= LEAST_BLOCKS:
        return max(min(wanted, fitting), least)
    return min(wanted, fitting) if fitting >= least else 0


def relative_error(parts: Sequence[tuple[float, float]]) -> float | None:
    """Two standard errors of a rate, as a share of it; None from fewer than two parts, which cannot tell.

    parts: (size, amount), such as rows and seconds of a block. The rate is all amounts divided by all sizes.
    """
    size, amount = sum(one for one, _ in parts), sum(one for _, one in parts)
    if len(parts) < 2 or not size or not amount:
        return None
    rate = amount / size
    squares = sum((one_amount - rate * one_size) ** 2 for one_size, one_amount in parts)
    return 2 * math.sqrt(squares * len(parts) / (len(parts) - 1)) / amount
