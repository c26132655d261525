"""Every seed that training derives, one function per purpose.

A seed is a function of the run's `--seed` and of a position in training (stage, epoch, window, step, rank), never of a
random state, so a resumed run draws what an uninterrupted one would have drawn. Derivations go through numpy's
`SeedSequence`, which mixes integers of any size, or through Philox keyed by (seed, counter).

Seeds decide the weights of a run, so they are frozen to keep earlier runs reproducible. That is why `step_seed` and
`stage_seed` keep their plain arithmetic where it fits into 63 bits and hash only where it does not, and why
`table_order` shares its stream with `window_order` of window 0 (`SeedSequence` ignores trailing zeros), which is
harmless: one orders the rows of the whole file, the other those of a window.
"""

from __future__ import annotations

import numpy as np

RANKS_PER_STEP = 64
STEPS_PER_SEED = 1_000_003
_FIRST_FOLDED = 2**63
"""Folded seeds start here, so that none equals a plain one; `torch.manual_seed` takes up to 2**64 - 1."""


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seed of one worker's dropout in one step, in [0, 2**64).

    `(seed * 1_000_003 + step) * 64 + rank` where that fits into 63 bits and ranks do not overlap the next step.
    """
    plain = (seed * STEPS_PER_SEED + step) * RANKS_PER_STEP + rank
    return plain if plain < _FIRST_FOLDED and rank < RANKS_PER_STEP else _fold(seed, step, rank, 3)


def stage_seed(seed: int, stage: int) -> int:
    """Seed of the order of the samples in stage 0 or 1 of task distillation, in [0, 2**64)."""
    plain = seed * 2 + stage
    return plain if plain < _FIRST_FOLDED else _fold(seed, stage, 4)


def epoch_seed(seed: int, epoch: int) -> int:
    """Seed of an epoch's draws from candidate sets, in [0, 2**63); epoch 0 draws what `--emit samples` wrote."""
    if epoch == 0:
        return seed
    return int(np.random.SeedSequence([seed, epoch, 2]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def table_order(seed: int, epoch: int) -> np.random.Generator:
    """Order of the rows of a labelled file in an epoch."""
    return _generator(seed, epoch)


def shard_order(seed: int, epoch: int) -> np.random.Generator:
    """Order of the shards in an epoch."""
    return _generator(seed, epoch, 1)


def window_order(seed: int, epoch: int, window: int) -> np.random.Generator:
    """Order of the rows and batches of a window."""
    return _generator(seed, epoch, window)


def balance_draws(seed: int, epoch: int, window: int) -> np.random.Generator:
    """Which samples of a window are repeated or left out."""
    return _generator(seed, epoch, window, 5)


def mined_order(seed: int) -> np.random.Generator:
    """Order of the pairs that are mined from the training texts."""
    return np.random.default_rng(seed)


def text_order(seed: int, epoch: int) -> np.random.Generator:
    """Segments and batches of plain text in an epoch. seed < 2**63."""
    return np.random.Generator(np.random.Philox(key=[seed, 2 * epoch]))


def masks(seed: int, step: int) -> np.random.Generator:
    """Masked positions of a step. seed < 2**63."""
    return np.random.Generator(np.random.Philox(key=[seed, 2 * step + 1]))


def _generator(*parts: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(list(parts))))


def _fold(*parts: int) -> int:
    return _FIRST_FOLDED + int(np.random.SeedSequence(list(parts)).generate_state(1, np.uint64)[0] >> np.uint64(1))
