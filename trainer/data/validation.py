"""Labelled rows, from a file or from the source rows of a job, and the validation split cut from them."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pyarrow as pa

from shared.inputs.rows import SourceRow
from shared.shards import read_shard
from shared.storage.store import open_store
from trainer.data.augmented import Augmented, wait_for_commit
from trainer.data.split import validation_part
from trainer.data.tasks import Table, TaskSpec

logger = logging.getLogger(__name__)


def cut(table: Table, spec: TaskSpec, share: float) -> tuple[Table, Table]:
    """Training rows and validation split. Raises InputError when there are too few rows."""
    examples = table.examples(spec)
    classes = examples.labels if spec.labels is not None and examples.labels.ndim == 1 else None
    part = validation_part(examples.texts_a, examples.texts_b, classes, share=share, where=table.path)
    rows = np.flatnonzero(part).tolist(), np.flatnonzero(~part).tolist()
    apart, kept = (replace(table, rows=[table.rows[index] for index in one]) for one in rows)
    logger.info("validation_part", extra={"fields": {"rows": len(apart.rows), "training_rows": len(kept.rows)}})
    return kept, apart


def source_table(
    augmented: Augmented, follow_timeout: float, carried: str | None = None, num_shards: int | None = None
) -> Table:
    """The source rows of all shards, or of the first `num_shards`. Waits for a job that is still running.

    carried: a column of the input to keep, if the shards have it. Raises TrainingError, ShardError.
    """
    store = open_store(augmented.uri)
    rows: list[SourceRow] = []
    fields: tuple[pa.Field, ...] = ()
    for shard in range(augmented.num_shards if num_shards is None else num_shards):
        table = read_shard(store, wait_for_commit(store, shard, augmented.num_shards, follow_timeout))
        if "n" in table.column_names:
            table = table.filter(pa.array(table["n"].to_numpy() == 0))
        fields = (table.schema.field(carried),) if carried in table.column_names else ()
        names = ("source_id", "text_a", "text_b", "label", *(one.name for one in fields))
        columns = [table[name].to_pylist() for name in names]
        for source_id, text_a, text_b, label, *rest in zip(*columns, strict=True):
            rows.append(SourceRow(source_id, text_a, text_b, label, tuple(rest)))
    return Table(augmented.uri, rows, rest_fields=fields)
