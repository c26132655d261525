"""A plan's time budget (pure arithmetic): what is measured when time is short, and the resulting error.

A plan always measures a minimum amount of work, whatever the options: otherwise there would be nothing to scale up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

SPARE_SECONDS = 3.5
"""Seconds reserved for interpreter start and imports, and for shutting down the plan's processes."""
LEAST_CHARACTERS = 100_000
"""Characters whose words are always counted, in whole shards; takes less than a second."""
COUNT_SHARE, LENGTHS_SHARE = 0.35, 0.3
"""Shares of the remaining seconds: for the count, then for single lengths. The rest is for rows."""
WARM_UP_ROWS, WARM_UP_CHARACTERS = 16, 4096
FIRST_ROWS, LEAST_BLOCKS = 32, 2
"""Rows of the first measured block; blocks after the warm-up that are always measured, to see their variance."""


def is_counted_enough(characters: int, shards: int, spent: float, seconds: float) -> bool:
    """Whether to stop counting shards: so far they took `spent` seconds, and another would exceed `seconds`."""
    return characters >= LEAST_CHARACTERS and spent + spent / shards > seconds


def warm_up_rows(characters: Sequence[int]) -> int:
    """Number of warm-up rows, given the characters of each: 16, fewer if they are long, at least one."""
    total = 0
    for count, one in enumerate(characters[:WARM_UP_ROWS], start=1):
        total += one
        if total >= WARM_UP_CHARACTERS:
            return count
    return min(len(characters), WARM_UP_ROWS)


def next_block(done: Sequence[tuple[int, float]], seconds: float) -> int:
    """Rows of the next block that fits into the remaining time; 0 to stop.

    done: (rows, seconds) of the blocks so far, the warm-up first; seconds: the budget of all blocks. The blocks that
    are always measured are as small as the warm-up when time is short.
    """
    rows, last_seconds = done[-1]
    wanted, least = FIRST_ROWS << max(len(done) - LEAST_BLOCKS, 0), done[0][0]
    left = seconds - sum(one for _, one in done)
    fitting = int(max(left, 0.0) * rows / last_seconds) if last_seconds > 0 else wanted
    # Reserve time for the later blocks that are always measured.
    fitting -= max(LEAST_BLOCKS - len(done), 0) * least
    if len(done) <= LEAST_BLOCKS:
        return max(min(wanted, fitting), least)
    return min(wanted, fitting) if fitting >= least else 0


def relative_error(parts: Sequence[tuple[float, float]]) -> float | None:
    """Two standard errors of a rate, relative to it; None with fewer than two parts.

    parts: (size, amount), such as rows and seconds of a block. The rate is all amounts divided by all sizes.
    """
    size, amount = sum(one for one, _ in parts), sum(one for _, one in parts)
    if len(parts) < 2 or not size or not amount:
        return None
    rate = amount / size
    squares = sum((one_amount - rate * one_size) ** 2 for one_size, one_amount in parts)
    return 2 * math.sqrt(squares * len(parts) / (len(parts) - 1)) / amount
