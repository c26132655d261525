"""The Ray actor that holds the masked LM and turns shards of rows into committed Arrow shards.

Rows go in, a commit comes out: no sample text passes through the driver. The constructor loads nothing; `load` is a
separate call, so that loading errors reach the driver with their own type.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import ray
import torch
import transformers

from augment_service.config import RunConfig
from augment_service.engine.augment import AugmentEngine
from augment_service.engine.batch_size import resolve_batch_tokens
from augment_service.engine.encoder import ARITHMETIC
from augment_service.engine.masked_lm import MaskedLM
from augment_service.job.assemble import shard_table
from augment_service.job.blame import Judge, is_not_a_rows_fault, reason_of
from augment_service.job.failures import BrokenProcessError, BrokenVectorsError, cause_of
from augment_service.job.feeders import Feeders, FeederWork, num_workers_per_gpu
from augment_service.job.model_facts import MlmFacts
from augment_service.job.node_view import check_model_seen, check_output_seen
from augment_service.job.ray_metrics import RayMetrics
from augment_service.job.shard_work import positions, quarantine
from shared.cli.logs import bind_log_fields, configure_logs
from shared.compute.hardware import hardware_kind
from shared.compute.memory import keep_freed_memory
from shared.errors import ClusterError
from shared.inputs.rows import QuarantinedRow, SourceRow
from shared.shards import Commit, done_already, write_shard
from shared.storage.store import open_store

logger = logging.getLogger(__name__)

MAX_KNOWN_WORDS = 100_000
CHECK_ROW = SourceRow(0, "the man is in the house")
"""Health check: a row that any working engine can process."""


class RemoteNeighbours:
    """Neighbours from the node's GloveWorker, with a cache of MAX_KNOWN_WORDS words that is cleared when full."""

    def __init__(self, patience_seconds: float) -> None:
        self.actor: Any = None
        self._patience_seconds = patience_seconds
        self._known: dict[tuple[str, int], tuple[tuple[str, float], ...]] = {}

    def nearest(self, words: Sequence[str], k: int) -> dict[str, tuple[tuple[str, float], ...]]:
        """The K nearest (word, cosine) of each word.

        Raises Ray's RayError when the GloveWorker has died or hangs, BrokenVectorsError when it fails on every word.
        """
        if len(self._known) > MAX_KNOWN_WORDS:
            self._known.clear()
        missing = [word for word in words if (word, k) not in self._known]
        if missing:
            found = self._ask(missing, k)
            self._known |= {(word, k): found[word] for word in missing}
        return {word: self._known[word, k] for word in words}

    def _ask(self, words: Sequence[str], k: int) -> dict[str, tuple[tuple[str, float], ...]]:
        try:
            answer: dict[str, tuple[tuple[str, float], ...]] = ray.get(
                self.actor.nearest.remote(words, k), timeout=self._patience_seconds
            )
        except Exception as error:
            if is_not_a_rows_fault(cause_of(error)):
                raise
            # Does it fail on these words only, or on all of them?
            try:
                ray.get(self.actor.check.remote(), timeout=self._patience_seconds)
            except Exception as second:
                if is_not_a_rows_fault(cause_of(second)):
                    raise
                raise BrokenVectorsError(reason_of(cause_of(second))) from error
            raise
        return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class _ModelTime:
    """Number of masked-LM batches, how many were halved, and their seconds."""

    batches: int
    halved: int
    seconds: float


class MlmWorker:
    """Holds the masked LM and processes whole shards: candidates, draws, Arrow, commit."""

    def __init__(self, config: RunConfig, run: str, job: str, name: str) -> None:
        configure_logs(config.log_format, config.log_level)
        bind_log_fields(job=job, actor=name)
        self._config, self._job, self._run = config, job, run
        # Vectors that take half of a shard's time limit to answer count as lost.
        self._neighbours = RemoteNeighbours(config.stall_seconds / 2)
        self._broken: BrokenProcessError | None = None
        self._feeders: Feeders | None = None

    def where(self) -> str:
        """Id of this actor's node; an answer means that the actor has been placed."""
        return str(ray.get_runtime_context().get_node_id())

    def load(self, batch_tokens: int | None = None) -> MlmFacts:
        """Load the model. Raises ModelError, UsageError, StoreError, OutputError (see `node_view`).

        batch_tokens: the job's tokens per model batch; None: measure it.
        """
        keep_freed_memory()
        config = self._config
        check_output_seen(config.output, self._run)
        check_model_seen("--mlm", config.mlm)
        self._store = open_store(config.output, self._run)
        self._metrics = RayMetrics(self._job, "actor")
        observe = partial(self._metrics.observe, "augment_masked_lm_batch_seconds")
        mlm = MaskedLM.load(config.mlm, config.device, config.dtype, config.mlm_threads, observe)
        self._masked_lm = mlm
        batch_tokens = resolve_batch_tokens(config.batch_tokens or batch_tokens, mlm)
        self._engine = AugmentEngine(mlm, self._neighbours, config.params(), batch_tokens, config.quotas)
        num_feeders = num_workers_per_gpu(config, mlm.device)
        if num_feeders:
            work = FeederWork(
                lexicon=mlm.lexicon,
                params=config.params(),
                emit=config.emit,
                quotas=config.quotas,
            )
            self._feeders = Feeders(num_feeders, work, mlm, self._neighbours)
            logger.debug("feeders_started", extra={"fields": {"pids": self._feeders.pids}})
        return MlmFacts(
            fingerprint=mlm.fingerprint(),
            device=mlm.device,
            arithmetic=ARITHMETIC,
            hardware=hardware_kind(mlm.device),
            dtype=str(mlm.dtype).removeprefix("torch."),
            batch_tokens=batch_tokens,
            torch=torch.__version__,
            transformers=transformers.__version__,
        )

    def attach(self, glove: Any) -> None:
        """Use this GloveWorker from now on."""
        self._neighbours.actor = glove

    def work(
        self,
        shard: int,
        rows: Sequence[SourceRow],
        quarantined: Sequence[QuarantinedRow],
        schema: pa.Schema,
        batch_tokens: int,
    ) -> Commit:
        """Write and commit one shard. A row that makes the engine fail is quarantined; the rest of the shard is kept.

        batch_tokens: tokens per model batch, the same for all actors of a job.

        If the shard was committed in the meantime, that commit is returned. Raises StoreError, ShardError,
        ModelError (scores that are not finite), OverloadError (memory ran out), ClusterError (every row fails), Ray's
        RayError or BrokenVectorsError when the vectors are lost, and BrokenProcessError when this process must be
        replaced.
        """
        self._check_process()
        self._engine.batch_tokens = batch_tokens
        began, before = time.monotonic(), self._model_time()
        if (done := done_already(self._store, shard)) is not None:
            return done
        kept, failed = list(rows), list(quarantined)
        try:
            table, statistics = self._table(kept, schema)
        except Exception as error:
            kept, poison = self._without_poison(kept, failed, schema, shard, error)
            failed += poison
            table, statistics = self._rest(kept, schema)
        spent = self._model_time(before)
        if spent.halved:
            statistics["halved_batches"] = spent.halved
        records = [asdict(one) for one in sorted(failed, key=lambda one: one.position)]
        commit = write_shard(self._store, shard, table, len(kept), records, statistics)
        self._measure(commit, time.monotonic() - began, spent)
        return commit

    def _rest(self, rows: Sequence[SourceRow], schema: pa.Schema) -> tuple[pa.Table, dict[str, float]]:
        """The table of rows that each passed alone. Raises ClusterError if they fail when processed together."""
        try:
            return self._table(rows, schema)
        except Exception as error:
            with self._broken_if_raised():
                self._judge(schema).check_process(error)
            raise ClusterError(
                f"the engine failed on {len(rows)} rows together, although each of them succeeded alone: "
                f"{reason_of(error)}; a smaller --shard-rows or --batch-tokens may help"
            ) from error

    def probe(self, rows: Sequence[SourceRow], schema: pa.Schema, batch_tokens: int) -> None:
        """Process these rows as `work` does but commit nothing, to see whether the process survives.

        Raises what `work` raises, except for an error of a row.
        """
        self._check_process()
        self._engine.batch_tokens = batch_tokens
        try:
            self._table(rows, schema)
        except Exception as error:
            with self._broken_if_raised():
                self._judge(schema).check_process(error)
            logger.debug("probe_failed", extra={"fields": {"reason": reason_of(error)}})

    def _judge(self, schema: pa.Schema) -> Judge[SourceRow]:
        propose: Any = self._engine.candidates if self._config.emit == "candidates" else self._engine.samples

        def check() -> None:
            # The rows may contain only multi-token words, which never reach the masked LM.
            self._masked_lm.check_output()
            propose([CHECK_ROW])

        return Judge(lambda rows: self._table(rows, schema), check)

    def _check_process(self) -> None:
        if self._broken is not None:
            raise self._broken

    @contextlib.contextmanager
    def _broken_if_raised(self) -> Iterator[None]:
        """Remember a BrokenProcessError: calls already queued must not run in such a process."""
        try:
            yield
        except BrokenProcessError as error:
            self._broken = error
            raise

    def _table(self, rows: Sequence[SourceRow], schema: pa.Schema) -> tuple[pa.Table, dict[str, float]]:
        if self._feeders is not None:
            return self._feeders.table(rows, schema, self._engine.batch_tokens)
        return shard_table(self._engine, self._config.emit, rows, schema)

    def _without_poison(
        self,
        rows: Sequence[SourceRow],
        quarantined: Sequence[QuarantinedRow],
        schema: pa.Schema,
        shard: int,
        error: Exception,
    ) -> tuple[list[SourceRow], list[QuarantinedRow]]:
        """After `error` on all rows: the good rows, and the bad ones in quarantine. Errors as in `Judge.failures`."""
        with self._broken_if_raised():
            failures = self._judge(schema).failures(rows, error)
        places = positions(shard, self._config.shard_rows, quarantined)
        poison: list[QuarantinedRow] = []
        for index, why in failures.items():
            row, reason = rows[index], f"the engine failed on this row: {why}"
            fields = {"shard": shard, "source_id": row.source_id, "reason": reason}
            logger.warning("row_quarantined", extra={"fields": fields})
            poison.append(quarantine(row, places[index], reason))
        return [row for index, row in enumerate(rows) if index not in failures], poison

    def _model_time(self, since: _ModelTime | None = None) -> _ModelTime:
        """Totals of this process, minus an earlier total if given."""
        guard, zero = self._masked_lm.guard, since or _ModelTime(batches=0, halved=0, seconds=0.0)
        return _ModelTime(
            batches=guard.batches - zero.batches,
            halved=guard.halved - zero.halved,
            seconds=guard.seconds - zero.seconds,
        )

    def _measure(self, commit: Commit, seconds: float, spent: _ModelTime) -> None:
        """Update metrics for a shard that took `seconds` and `spent` in the model."""
        count, counts = self._metrics, commit.statistics
        count.add("augment_rows_total", commit.sources + commit.quarantined)
        count.add("augment_samples_total", counts.get("samples", 0))
        count.add("augment_shards_total", 1)
        count.add("augment_quarantined_rows_total", commit.quarantined)
        count.add("augment_model_inputs_total", counts.get("model_inputs", 0))
        count.add("augment_model_tokens_total", counts.get("model_tokens", 0))
        count.add("augment_halved_batches_total", spent.halved)
        count.observe("augment_shard_seconds", seconds)
        count.set("augment_busy_ratio", min(spent.seconds / max(seconds, 1e-9), 1.0))
        if spent.batches:
            fill = counts.get("model_tokens", 0) / (spent.batches * self._engine.batch_tokens)
            count.set("augment_batch_fill_ratio", fill)
        fields = {"shard": commit.shard, "rows": commit.rows, "seconds": seconds}
        logger.debug("shard_committed", extra={"fields": fields})
