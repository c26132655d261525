"""Counter-based randomness: Philox 4x32-10 (Salmon et al., SC'11), vectorised with numpy.

A draw is a function of (seed, source id, draw number, word index) only, never of worker, batch or time. So a row has
the same samples in any shard, on any node, after any number of restarts.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

UInt32 = NDArray[np.uint32]

_MULTIPLIERS = np.asarray([0xD2511F53, 0xCD9E8D57], np.uint64)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def philox4x32(counter: tuple[ArrayLike, ...], key: tuple[int, int]) -> tuple[UInt32, UInt32, UInt32, UInt32]:
    """Four uint32 arrays of random bits for four broadcastable uint32 counter arrays and a key of two uint32."""
    parts = [np.asarray(part, np.uint64) for part in counter]
    shape = np.broadcast(*parts).shape
    # Both halves of a round are one in-place operation: for few draws, numpy call overhead dominates.
    multiplied, others, products = (np.empty((2, *shape), np.uint64) for _ in range(3))
    multiplied[0], others[0], multiplied[1], others[1] = parts
    swapped = products[::-1]
    multipliers, keys = (pairs.reshape(-1, 2, *(1,) * len(shape)) for pairs in (_MULTIPLIERS, _round_keys(*key)))
    for round_key in keys:
        np.multiply(multiplied, multipliers[0], out=products)
        np.right_shift(swapped, _SHIFT, out=multiplied)
        multiplied ^= others
        multiplied ^= round_key
        np.bitwise_and(swapped, _LOW, out=others)
    (c0, c2), (c1, c3) = multiplied.astype(np.uint32), others.astype(np.uint32)
    return c0, c1, c2, c3


@lru_cache
def _round_keys(k0: int, k1: int) -> NDArray[np.uint64]:
    """(rounds, 2): the key of each round, advanced by Weyl sequences."""
    rounds = [[(k0 + i * _WEYL[0]) & 0xFFFFFFFF, (k1 + i * _WEYL[1]) & 0xFFFFFFFF] for i in range(_ROUNDS)]
    return np.asarray(rounds, np.uint64)


def uniforms(
    seed: int, source_id: ArrayLike, draw: ArrayLike, word_index: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two independent float64 arrays for broadcastable integer arrays: p in (0, 1], and a pick in [0, 1).

    p is never 0, so that `p <= P_t` never holds for P_t = 0 and always holds for P_t = 1. Both have 53 random bits.
    """
    ids = np.asarray(source_id, np.int64).astype(np.uint64)
    key = (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)
    r0, r1, r2, r3 = philox4x32((ids & _LOW, ids >> _SHIFT, draw, word_index), key)
    return (_bits53(r0, r1) + 1.0) * 2.0**-53, _bits53(r2, r3) * 2.0**-53


def _bits53(high: UInt32, low: UInt32) -> NDArray[np.float64]:
    bits = (high.astype(np.uint64) << np.uint64(21)) | (low.astype(np.uint64) >> np.uint64(11))
    return bits.astype(np.float64)
