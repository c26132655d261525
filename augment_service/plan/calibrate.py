"""One process of a plan's calibration: it does what an actor of the job does, on a few rows, and takes the time.

Each process holds its models in this module's `_bench`, set by `load`; the other functions are what the plan calls in
it. Loads torch: only these processes import it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from augment_service.config import PlanConfig
from augment_service.engine.augment import AugmentEngine
from augment_service.engine.batches import ModelInput
from augment_service.engine.glove import GloveVectors
from augment_service.engine.masked_lm import MaskedLM
from augment_service.job.assemble import candidates_table, sample_statistics, samples_table
from augment_service.plan.estimate import Block, Loaded, Passes
from shared.compute.memory import keep_freed_memory
from shared.inputs.rows import SourceRow
from shared.shards import write_shard
from shared.storage.store import open_store

WARM_UP_ROWS = 16
BATCHES_PER_CALL = 4


class _Stopwatch(MaskedLM):
    """A masked LM that adds up the time of its answers."""

    seconds = 0.0

    def rank(self, *arguments: Any) -> Any:
        """As MaskedLM.rank."""
        began = time.perf_counter()
        answers = super().rank(*arguments)
        self.seconds += time.perf_counter() - began
        return answers


class _TimedVectors(GloveVectors):
    """Word vectors that add up the time of their answers, and the words asked for."""

    seconds = 0.0

    def nearest(self, words: Sequence[str], k: int) -> dict[str, tuple[tuple[str, float], ...]]:
        """As GloveVectors.nearest."""
        began = time.perf_counter()
        found = super().nearest(words, k)
        self.seconds += time.perf_counter() - began
        return found

    @property
    def num_known(self) -> int:
        """Words looked up so far."""
        return len(self._cache)


class _Bench:
    """Models of one process."""

    def __init__(self, config: PlanConfig) -> None:
        keep_freed_memory()
        masked_lm = _Stopwatch.load(config.mlm, config.device, config.dtype, config.mlm_threads)
        assert isinstance(masked_lm, _Stopwatch)
        self.config, self.masked_lm = config, masked_lm
        vectors = _TimedVectors.load(config.glove, config.glove_limit)
        assert isinstance(vectors, _TimedVectors)
        self.vectors = vectors
        self.engine = AugmentEngine(masked_lm, self.vectors, config.params(), config.batch_tokens)

    def passes(self, rows: Sequence[SourceRow]) -> Passes:
        """What the model is asked for one shard of these rows, each text as it is."""
        texts = [text for row in rows for text in (row.text_a, row.text_b) if text is not None]
        found: dict[int, tuple[int, int]] = {}
        asked, words = self.engine.workload(texts)
        for one in asked:
            inputs, answers = found.get(len(one), (0, 0))
            found[len(one)] = (inputs + 1, answers + len(one.positions))
        return Passes(found, frozenset(words))

    def block(self, rows: Sequence[SourceRow], schema: pa.Schema, folder: str, shard: int) -> Block:
        """One shard of these rows, from words to commit."""
        engine, before = self.engine, self._clocks()
        began, cpu_began = time.perf_counter(), time.process_time()
        counts: dict[str, float] = {}
        if self.config.emit == "candidates":
            table = candidates_table(schema, rows, engine.candidates(rows))
        else:
            found, samples = engine.samples(rows)
            table, counts = samples_table(schema, rows, found, samples), sample_statistics(found, samples)
        commit = write_shard(open_store(folder), shard, table, len(rows), [], counts)
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
        model_seconds, inputs, vector_seconds, words = (
            now - then for now, then in zip(self._clocks(), before, strict=True)
        )
        return Block(
            len(rows), int(counts.get("samples", 0)), commit.num_bytes, seconds, cpu_seconds, model_seconds,
            int(inputs), vector_seconds, int(words), self.passes(rows),
        )  # fmt: skip

    def _clocks(self) -> tuple[float, float, float, float]:
        asked = float(self.engine.statistics.model_inputs)
        return self.masked_lm.seconds, asked, self.vectors.seconds, float(self.vectors.num_known)

    def seconds_per_input(self, length: int, answers: int) -> float:
        """Time of one input of this length, in a few full batches of its like."""
        mlm = self.masked_lm
        count = max(self.config.batch_tokens // length, 1)
        ids = (mlm.lexicon.cls_id, *[mlm.lexicon.mask_id] * (length - 2), mlm.lexicon.sep_id)
        places = tuple(1 + place * (length - 2) // answers for place in range(answers))
        inputs = [ModelInput(ids, places, length)] * (count * BATCHES_PER_CALL)
        batches = [range(start, start + count) for start in range(0, len(inputs), count)]
        began = time.perf_counter()
        mlm.rank(inputs, batches, self.engine.params.k + 1, None)
        return (time.perf_counter() - began) / len(inputs)


_bench: _Bench | None = None


def load(config: PlanConfig) -> Loaded:
    """Load the models into this process. Raises ModelError, UsageError."""
    global _bench
    _bench = _Bench(config)
    mlm = _bench.masked_lm
    return Loaded(mlm.cost(), mlm.device, str(mlm.dtype).removeprefix("torch."))


def load_vectors(path: str, limit: int | None) -> None:
    """Load the vectors alone, as the process that holds them in a run does. Raises ModelError."""
    GloveVectors.load(path, limit)


def count(shards: Sequence[Sequence[SourceRow]]) -> list[Passes]:
    """Passes of whole shards."""
    assert _bench is not None
    return [_bench.passes(rows) for rows in shards]


def time_lengths(lengths: Sequence[tuple[int, int]], seconds: float) -> list[float]:
    """Seconds of one input per (length, answers): the least of as many rounds as there is time for, since whatever
    else goes on here only ever adds. Blocks of rows say how much it adds."""
    assert _bench is not None
    _bench.seconds_per_input(*lengths[0])
    began = time.perf_counter()
    rounds: list[list[float]] = []
    while not rounds or time.perf_counter() - began < seconds:
        rounds.append([_bench.seconds_per_input(length, answers) for length, answers in lengths])
    return [min(times) for times in zip(*rounds, strict=True)]


def time_rows(rows: Sequence[SourceRow], schema: pa.Schema, seconds: float) -> list[Block]:
    """As many of the rows as take about `seconds`, in blocks that grow, each done as a shard of the job; the first few
    rows only warm up."""
    assert _bench is not None
    blocks: list[Block] = []
    size, start = WARM_UP_ROWS, 0
    with tempfile.TemporaryDirectory(prefix="augment-plan-") as folder:
        while start < len(rows) and sum(block.seconds for block in blocks[1:]) < seconds:
            blocks.append(_bench.block(rows[start : start + size], schema, folder, len(blocks)))
            start, size = start + size, size * 2
    return blocks[1:] or blocks
