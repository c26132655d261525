"""Counter-based randomness: the published test vectors of Philox 4x32-10, and the ranges that draws rely on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.rng import philox4x32, uniforms

ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_test_vectors_of_random123(
    counter: tuple[int, ...], key: tuple[int, int], answer: tuple[int, ...]
) -> None:
    found = philox4x32(tuple(np.asarray([part]) for part in counter), key)
    assert tuple(int(part[0]) for part in found) == answer


@given(st.integers(0, 2**63 - 1), st.integers(-(2**63), 2**63 - 1), st.integers(0, 10**6), st.integers(0, 10**6))
def test_p_is_never_zero_and_a_pick_never_one(seed: int, source: int, draw: int, word: int) -> None:
    p, pick = uniforms(seed, source, draw, word)
    assert 0.0 < float(p) <= 1.0
    assert 0.0 <= float(pick) < 1.0


def test_uniforms_are_uniform() -> None:
    p, pick = uniforms(5, np.arange(20_000), 3, 7)
    for values in (p, pick):
        assert abs(values.mean() - 0.5) < 0.01
        assert abs((values <= 0.4).mean() - 0.4) < 0.015
    assert abs(np.corrcoef(p, pick)[0, 1]) < 0.02
