"""One process of a plan's calibration: runs an actor's work on a few rows and times it.

Loads torch, so only the calibration processes import it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from augment_service.config import PlanConfig
from augment_service.engine.augment import AugmentEngine
from augment_service.engine.batch_size import resolve_batch_tokens
from augment_service.engine.batches import ModelInput
from augment_service.engine.glove import GloveVectors
from augment_service.engine.masked_lm import MaskedLM
from augment_service.job.assemble import candidates_table, sample_statistics, samples_table
from augment_service.plan.budget import is_counted_enough, next_block, warm_up_rows
from augment_service.plan.estimate import Block, Count, Loaded, Passes, TypicalInput
from shared.compute.memory import keep_freed_memory
from shared.inputs.rows import SourceRow
from shared.shards import write_shard
from shared.storage.store import open_store

BATCHES_PER_CALL = 4


class _TimedMaskedLM(MaskedLM):
    """A masked LM that sums up its response time."""

    seconds = 0.0

    def rank(self, *arguments: Any) -> Any:
        """As MaskedLM.rank."""
        began = time.perf_counter()
        answers = super().rank(*arguments)
        self.seconds += time.perf_counter() - began
        return answers


class _TimedVectors(GloveVectors):
    """Word vectors that sum up their response time."""

    seconds = 0.0

    def nearest(self, words: Sequence[str], k: int) -> dict[str, tuple[tuple[str, float], ...]]:
        """As GloveVectors.nearest."""
        began = time.perf_counter()
        found = super().nearest(words, k)
        self.seconds += time.perf_counter() - began
        return found

    @property
    def num_known(self) -> int:
        """Number of words looked up so far."""
        return len(self._cache)


class VectorBench:
    """Simulates the word-vector process of a run: it only loads the vectors."""

    def load(self, path: str, limit: int | None) -> None:
        """Load the vectors. Raises ModelError."""
        GloveVectors.load(path, limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clocks:
    """Running totals at one moment; subtract two to measure an interval."""

    seconds: float
    cpu_seconds: float
    model_seconds: float
    model_inputs: int
    vector_seconds: float
    vector_words: int


class Bench:
    """The models of one process, timed. Call `load` first."""

    def load(self, config: PlanConfig) -> Loaded:
        """Load the models. Raises ModelError, UsageError."""
        keep_freed_memory()
        masked_lm = _TimedMaskedLM.load(config.mlm, config.device, config.dtype, config.mlm_threads)
        vectors = _TimedVectors.load(config.glove, config.glove_limit)
        assert isinstance(masked_lm, _TimedMaskedLM)
        assert isinstance(vectors, _TimedVectors)
        self._config, self._masked_lm, self._vectors = config, masked_lm, vectors
        self._batch_tokens = resolve_batch_tokens(config.batch_tokens, masked_lm)
        self._engine = AugmentEngine(masked_lm, vectors, config.params(), self._batch_tokens, config.quotas)
        dtype = str(masked_lm.dtype).removeprefix("torch.")
        return Loaded(cost=masked_lm.cost(), device=masked_lm.device, dtype=dtype)

    def count(self, shards: Sequence[Sequence[SourceRow]], seconds: float) -> list[Passes]:
        """The model passes of each shard, for as many shards as can be counted in `seconds`, at least a minimum."""
        began, characters, counted = time.perf_counter(), 0, list[Passes]()
        for rows in shards:
            if is_counted_enough(characters, len(counted), time.perf_counter() - began, seconds):
                break
            counted.append(self._passes(rows))
            characters += sum(map(_characters, rows))
        return counted

    def time_inputs(self, inputs: Sequence[TypicalInput], seconds: float) -> list[float]:
        """Seconds per model input of each kind, measured for `seconds` in total, at least one round of single batches.

        Takes the minimum over as many rounds as fit, because other processes on the machine only ever add time; their
        effect shows in the blocks of `time_rows`.
        """
        began = time.perf_counter()
        per_token = self._seconds_of(inputs[0], 1) / inputs[0].length
        # Batches have about equal size, so the time of a round is proportional to its number of batches.
        round_seconds = per_token * self._batch_tokens * len(inputs) * BATCHES_PER_CALL
        batches = BATCHES_PER_CALL if time.perf_counter() - began + round_seconds < seconds else 1
        rounds: list[list[float]] = []
        while True:
            round_began = time.perf_counter()
            rounds.append([self._seconds_of(one, batches) for one in inputs])
            now = time.perf_counter()
            if now - began + (now - round_began) > seconds:
                return [min(times) for times in zip(*rounds, strict=True)]

    def time_rows(self, rows: Sequence[SourceRow], schema: pa.Schema, seconds: float) -> list[Block]:
        """Process rows for `seconds`, each block as the job would process a shard; blocks grow as long as they fit.

        The first block is a warm-up and is dropped unless it is the only one.
        """
        blocks: list[Block] = []
        size, start = warm_up_rows([*map(_characters, rows)]), 0
        with tempfile.TemporaryDirectory(prefix="augment-plan-") as folder:
            while start < len(rows) and size:
                blocks.append(self._block(rows[start : start + size], schema, folder, len(blocks)))
                start += size
                size = next_block([(block.rows, block.seconds) for block in blocks], seconds)
        return blocks[1:] or blocks

    def _passes(self, rows: Sequence[SourceRow]) -> Passes:
        """The model inputs of one shard of these rows, from unmodified texts."""
        texts = [text for row in rows for text in (row.text_a, row.text_b) if text is not None]
        found: dict[int, Count] = {}
        inputs, words = self._engine.workload(texts)
        for one in inputs:
            before = found.get(len(one), Count(inputs=0, answers=0))
            found[len(one)] = Count(inputs=before.inputs + 1, answers=before.answers + len(one.positions))
        return Passes(found, frozenset(words))

    def _block(self, rows: Sequence[SourceRow], schema: pa.Schema, folder: str, shard: int) -> Block:
        """Process one shard of these rows, from words to commit."""
        before, statistics = self._clocks(), dict[str, float]()
        if self._config.emit == "candidates":
            table = candidates_table(schema, rows, self._engine.candidates(rows))
        else:
            found, samples = self._engine.samples(rows)
            table, statistics = samples_table(schema, rows, found, samples), sample_statistics(found, samples)
        commit = write_shard(open_store(folder), shard, table, len(rows), [], statistics)
        after = self._clocks()
        return Block(
            rows=len(rows),
            samples=int(statistics.get("samples", 0)),
            num_bytes=commit.num_bytes,
            seconds=after.seconds - before.seconds,
            cpu_seconds=after.cpu_seconds - before.cpu_seconds,
            model_seconds=after.model_seconds - before.model_seconds,
            model_inputs=after.model_inputs - before.model_inputs,
            vector_seconds=after.vector_seconds - before.vector_seconds,
            vector_words=after.vector_words - before.vector_words,
            passes=self._passes(rows),
        )

    def _clocks(self) -> _Clocks:
        return _Clocks(
            seconds=time.perf_counter(),
            cpu_seconds=time.process_time(),
            model_seconds=self._masked_lm.seconds,
            model_inputs=self._engine.statistics.model_inputs,
            vector_seconds=self._vectors.seconds,
            vector_words=self._vectors.num_known,
        )

    def _seconds_of(self, typical: TypicalInput, num_batches: int) -> float:
        """Seconds per input of this kind, in full batches of them."""
        lexicon, length = self._masked_lm.lexicon, typical.length
        per_batch = max(self._batch_tokens // length, 1)
        ids = (lexicon.cls_id, *[lexicon.mask_id] * (length - 2), lexicon.sep_id)
        positions = tuple(1 + place * (length - 2) // typical.answers for place in range(typical.answers))
        inputs = [ModelInput(ids, positions, length)] * (per_batch * num_batches)
        batches = [range(start, start + per_batch) for start in range(0, len(inputs), per_batch)]
        began = time.perf_counter()
        self._masked_lm.rank(inputs, batches, self._engine.params.k + 1, None)
        return (time.perf_counter() - began) / len(inputs)


def _characters(row: SourceRow) -> int:
    return len(row.text_a) + len(row.text_b or "")
