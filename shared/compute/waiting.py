"""How the threads of a model wait for each other."""

import os

SPINS = 2_000
"""Turns of the waiting loop before a thread sleeps, some tens of microseconds; GNU OpenMP's own value is 300,000."""


def wait_briefly() -> None:
    """Make OpenMP's threads sleep soon when they wait for each other. Works before torch is imported.

    A thread that waits by spinning takes the processor from the one it waits for, wherever other programs run on the
    same cores: next to one of them on two cores, training was 27 times slower than with this value, and alone as fast
    (`benchmarks/results/waiting.md`). What the user has set already stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
