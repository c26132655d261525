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

from augment_service.assemble import candidates_table, sample_statistics, samples_table
from augment_service.batches import ModelInput
from augment_service.config import PlanConfig
from augment_service.engine import AugmentEngine
from augment_service.estimate import Block, Loaded, Passes
from augment_service.glove import GloveVectors
from augment_service.masked_lm import MaskedLM
from shared.memory import keep_freed_memory
from shared.rows import SourceRow
from shared.shards import write_shard
from shared.store import open_store

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


class _Bench:
    """Models of one process."""

    def __init__(self, config: PlanConfig) -> None:
        keep_freed_memory()
        masked_lm = _Stopwatch.load(config.mlm, config.device, config.dtype, config.mlm_threads)
        assert isinstance(masked_lm, _Stopwatch)
        self.config, self.masked_lm = config, masked_lm
        glove = GloveVectors.load(config.glove, config.glove_limit)
        self.engine = AugmentEngine(masked_lm, glove, config.params(), config.batch_tokens)

    def passes(self, rows: Sequence[SourceRow]) -> Passes:
        """What the model is asked for one shard of these rows, each text as it is."""
        texts = [text for row in rows for text in (row.text_a, row.text_b) if text is not None]
        found: dict[int, tuple[int, int]] = {}
        for one in self.engine.model_inputs(texts):
            inputs, answers = found.get(len(one), (0, 0))
            found[len(one)] = (inputs + 1, answers + len(one.positions))
        return Passes(found)

    def block(self, rows: Sequence[SourceRow], schema: pa.Schema, folder: str, shard: int) -> Block:
        """One shard of these rows, from words to commit."""
        statistics, engine = self.engine.statistics, self.engine
        before = (statistics.model_inputs, statistics.model_tokens, self.masked_lm.seconds)
        began = time.perf_counter()
        counts: dict[str, float] = {}
        if self.config.emit == "candidates":
            table = candidates_table(schema, rows, engine.candidates(rows))
        else:
            found, samples = engine.samples(rows)
            table, counts = samples_table(schema, rows, found, samples), sample_statistics(found, samples)
        commit = write_shard(open_store(folder), shard, table, len(rows), [], counts)
        seconds = time.perf_counter() - began
        inputs, tokens, model_seconds = (
            now - then
            for now, then in zip(
                (statistics.model_inputs, statistics.model_tokens, self.masked_lm.seconds), before, strict=True
            )
        )
        return Block(
            len(rows), int(counts.get("samples", 0)), commit.num_bytes, seconds, model_seconds, int(inputs),
            int(tokens), self.passes(rows),
        )  # fmt: skip

    def seconds_per_input(self, length: int, answers: int, seconds: float) -> float:
        """Time of one input of this length in full batches of its like, measured for `seconds` or one call."""
        mlm = self.masked_lm
        count = max(self.config.batch_tokens // length, 1)
        ids = (mlm.cls_id, *[mlm.mask_id] * (length - 2), mlm.sep_id)
        places = tuple(1 + place * (length - 2) // answers for place in range(answers))
        inputs = [ModelInput(ids, places, length)] * (count * BATCHES_PER_CALL)
        batches = [range(start, start + count) for start in range(0, len(inputs), count)]
        began, calls = time.perf_counter(), 0
        while not calls or time.perf_counter() - began < seconds:
            mlm.rank(inputs, batches, self.engine.params.k + 1, None)
            calls += 1
        return (time.perf_counter() - began) / (calls * len(inputs))


_bench: _Bench | None = None


def load(config: PlanConfig) -> Loaded:
    """Load the models into this process. Raises ModelError, UsageError."""
    global _bench
    began = time.perf_counter()
    _bench = _Bench(config)
    mlm = _bench.masked_lm
    return Loaded(time.perf_counter() - began, mlm.cost(), mlm.device, str(mlm.dtype).removeprefix("torch."))


def count(shards: Sequence[Sequence[SourceRow]]) -> list[Passes]:
    """Passes of whole shards."""
    assert _bench is not None
    return [_bench.passes(rows) for rows in shards]


def time_lengths(lengths: Sequence[tuple[int, int]], seconds: float) -> list[float]:
    """Seconds of one input per (length, answers)."""
    assert _bench is not None
    _bench.seconds_per_input(*lengths[0], 0.0)
    return [_bench.seconds_per_input(length, answers, seconds / len(lengths)) for length, answers in lengths]


def time_rows(rows: Sequence[SourceRow], schema: pa.Schema, seconds: float) -> Block:
    """As many of the rows as take about `seconds`, done as one shard of the job, after a few to warm up."""
    assert _bench is not None
    with tempfile.TemporaryDirectory(prefix="augment-plan-") as folder:
        first = _bench.block(rows[:WARM_UP_ROWS], schema, folder, 0)
        later = rows[WARM_UP_ROWS:] or rows
        wanted = max(int(first.rows * seconds / max(first.seconds, 1e-6)), WARM_UP_ROWS)
        return _bench.block(later[:wanted], schema, folder, 1)
