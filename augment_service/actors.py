"""Ray actors: one kind holds the masked LM and turns shards of rows into committed Arrow shards, one holds the vectors.

Rows go in, a commit comes out: no text of a sample passes through the driver. Both classes work without Ray as well,
which is how the tests of their logic use them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import ray
import torch
import transformers

from augment_service.assemble import candidates_table, sample_statistics, samples_table
from augment_service.config import RunConfig
from augment_service.engine import AugmentEngine, Neighbours
from augment_service.glove import GloveVectors
from augment_service.masked_lm import MaskedLM
from shared.errors import ExpectedError
from shared.memory import keep_freed_memory
from shared.rows import QuarantinedRow, SourceRow
from shared.shards import Commit, write_shard
from shared.store import open_store

logger = logging.getLogger(__name__)


class GloveWorker:
    """Holds the word vectors of a job; shares their memory with every process of its node through the page cache."""

    def __init__(self, path: str, limit: int | None) -> None:
        self._vectors = GloveVectors.load(path, limit)

    def describe(self) -> dict[str, Any]:
        """What goes into the manifest."""
        return {"fingerprint": self._vectors.fingerprint, "words": len(self._vectors.words)}

    def nearest(self, words: Sequence[str], k: int) -> dict[str, tuple[tuple[str, float], ...]]:
        """Per word its K nearest (word, cosine)."""
        return self._vectors.nearest(words, k)


class RemoteNeighbours:
    """Neighbours asked of a GloveWorker actor; each word is asked once per process."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._known: dict[tuple[str, int], tuple[tuple[str, float], ...]] = {}

    def nearest(self, words: Sequence[str], k: int) -> dict[str, tuple[tuple[str, float], ...]]:
        """Per word its K nearest (word, cosine)."""
        missing = [word for word in words if (word, k) not in self._known]
        if missing:
            found = ray.get(self._actor.nearest.remote(missing, k))
            self._known |= {(word, k): found[word] for word in missing}
        return {word: self._known[word, k] for word in words}


class MlmWorker:
    """Holds the masked LM and does whole shards: candidates, draws, Arrow, commit."""

    def __init__(self, config: RunConfig, neighbours: Any) -> None:
        keep_freed_memory()
        masked_lm = MaskedLM.load(config.mlm, config.device, config.dtype, config.mlm_threads)
        self._config = config
        self._masked_lm = masked_lm
        # An actor handle stands for its worker; without Ray the vectors themselves come in.
        nearest: Neighbours = neighbours if isinstance(neighbours, GloveVectors) else RemoteNeighbours(neighbours)
        self._engine = AugmentEngine(masked_lm, nearest, config.params(), config.batch_tokens)
        self._store = open_store(config.output)

    def describe(self) -> dict[str, Any]:
        """What goes into the manifest: weights, device, precision, library versions."""
        mlm = self._masked_lm
        return {
            "fingerprint": mlm.fingerprint(),
            "device": mlm.device,
            "dtype": str(mlm.dtype).removeprefix("torch."),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    def work(
        self, shard: int, rows: Sequence[SourceRow], quarantined: Sequence[QuarantinedRow], schema: pa.Schema
    ) -> Commit:
        """Write and commit one shard. A row that the engine cannot stand is quarantined instead of the shard lost."""
        kept, failed = list(rows), list(quarantined)
        try:
            table, statistics = self._table(kept, schema)
        except (ExpectedError, torch.OutOfMemoryError, MemoryError):
            raise
        except Exception:
            kept, poison = self._without_poison(kept, schema)
            failed += poison
            table, statistics = self._table(kept, schema)
        records = [asdict(one) for one in sorted(failed, key=lambda one: one.position)]
        return write_shard(self._store, shard, table, len(kept), records, statistics)

    def _table(self, rows: Sequence[SourceRow], schema: pa.Schema) -> tuple[pa.Table, dict[str, float]]:
        if self._config.emit == "candidates":
            found = self._engine.candidates(rows)
            return candidates_table(schema, rows, found), {"sites": sum(len(one.sites) for one in found)}
        found, samples = self._engine.samples(rows)
        return samples_table(schema, rows, found, samples), sample_statistics(found, samples)

    def _without_poison(
        self, rows: Sequence[SourceRow], schema: pa.Schema
    ) -> tuple[list[SourceRow], list[QuarantinedRow]]:
        kept: list[SourceRow] = []
        poison: list[QuarantinedRow] = []
        for row in rows:
            try:
                self._table([row], schema)
                kept.append(row)
            except ExpectedError:
                raise
            except Exception as error:
                reason = f"the engine failed on it: {type(error).__name__}: {str(error)[:200]}"
                logger.warning("row_quarantined", extra={"fields": {"source_id": row.source_id, "reason": reason}})
                poison.append(QuarantinedRow(row.source_id, f"source {row.source_id}", reason, row.text_a[:2000]))
        return kept, poison
