"""Cost of exchanging the arrays of a part between a worker and the actor: a plain pipe compared with shared memory.

Two processes repeat the exchange for a part of 128 rows of SST-2, with arrays of the same sizes and no work on them: a
query, its rankings, the finished table, the next part. Prints the CPU time of each side per masked input, alternating.

    python benchmarks/channel.py
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from augment_service.engine.batches import ModelInputs, Rankings  # noqa: E402
from augment_service.job.channel import Channel  # noqa: E402
from benchmarks.augment import cpu_name  # noqa: E402
from shared.compute.memory import keep_freed_memory  # noqa: E402

INPUTS, TOKENS, K = 1167, 27, 16
"""Masked inputs of a part, tokens of each, and entries ranked, as counted in benchmarks/gpu.py."""
TABLE_BYTES = 730_000


class Pipe:
    """Like Channel, but pickles everything into the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self.send, self.receive = pipe.send, pipe.recv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    keep_freed_memory()
    print(f"{cpu_name()}\n\n| | actor | worker |\n|---|---|---|")
    for _ in range(options.rounds):
        for name, kind in (("pipe", Pipe), ("shared memory", Channel)):
            actor, worker = _measure(kind, options.parts)
            print(f"| {name} | {actor:.2f} µs | {worker:.2f} µs |", flush=True)


def _measure(kind: Callable[[Connection], Any], parts: int) -> tuple[float, float]:
    """CPU microseconds per masked input of both sides."""
    (ours, theirs), (result, measured) = multiprocessing.Pipe(), multiprocessing.Pipe()
    process = multiprocessing.Process(target=_worker, args=(kind, theirs, parts, measured))
    process.start()
    theirs.close()
    end = kind(ours)
    answer = Rankings(np.ones((INPUTS, K), np.int64), np.ones((INPUTS, K), np.float32), np.arange(INPUTS + 1))
    end.send("a part")
    before = _cpu_seconds()
    for _ in range(parts):
        asked = end.receive()
        asked.ids.sum()
        end.send(answer)
        table = end.receive()
        # Simulates concatenating the tables of a shard's parts.
        np.frombuffer(table, np.uint8).copy()
        del asked, table
        end.send("a part")
    actor, worker = _cpu_seconds() - before, result.recv()
    process.join()
    return 1e6 * actor / (parts * INPUTS), 1e6 * worker / (parts * INPUTS)


def _worker(kind: Callable[[Connection], Any], pipe: Connection, parts: int, measured: Connection) -> None:
    keep_freed_memory()
    end = kind(pipe)
    starts = np.arange(INPUTS + 1) * TOKENS
    ones = np.ones(INPUTS, np.int64)
    asked = ModelInputs(np.ones(INPUTS * TOKENS, np.int32), starts, ones, np.arange(INPUTS + 1), ones)
    written = pa.py_buffer(np.ones(TABLE_BYTES, np.uint8))
    end.receive()
    before = _cpu_seconds()
    for _ in range(parts):
        end.send(asked)
        end.receive().take(ones)
        end.send(written if kind is Channel else written.to_pybytes())
        end.receive()
    measured.send(_cpu_seconds() - before)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
