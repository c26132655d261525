"""The output of an augmentation job as the trainer reads it: its manifest, its commits, and the samples of a shard.

Everything works while the job is still writing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shared.candidates import RowCandidates, Site, TextCandidates
from shared.errors import TrainingError
from shared.glue import get_task
from shared.label_quotas import LabelQuotas
from shared.manifest import MANIFEST, Manifest, read_manifest
from shared.params import AugmentParams
from shared.rendering import ShardOrder, render_samples
from shared.sampling import draw_samples
from shared.seeds import epoch_seed
from shared.shards import Commit, commit_name, read_commit
from shared.storage.store import Store, open_store

POLL_SECONDS = 0.5
JOB = "the augmentation job"


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmented:
    """The facts in a job's manifest.

    has_pairs: whether rows have two texts; None if the manifest does not record it. fingerprint: sha256 of the
    manifest.
    """

    uri: str
    num_shards: int
    emits_candidates: bool
    params: AugmentParams
    quotas: LabelQuotas
    task: str | None
    has_pairs: bool | None
    fingerprint: str

    @property
    def largest_n_a(self) -> int:
        """The largest number of samples that the job made from a row."""
        return self.quotas.largest(self.params.n_a)


def open_augmented(uri: str, timeout_seconds: float) -> Augmented:
    """Read a job's manifest, waiting for a job that has not started. Raises ManifestError, TrainingError."""
    store = open_store(uri)
    _wait(
        lambda: store.exists(MANIFEST),
        growth=lambda: 0,
        timeout_seconds=timeout_seconds,
        complaint=lambda: (
            f"{store.uri} has no {MANIFEST}: no augmentation job started writing there within "
            f"{timeout_seconds:.0f} seconds (--follow-timeout)"
        ),
    )
    manifest = read_manifest(store)
    return Augmented(
        uri=uri,
        num_shards=manifest.plan.shards,
        emits_candidates=manifest.config.emit == "candidates",
        params=manifest.config.params(),
        quotas=manifest.config.quotas,
        task=manifest.config.task,
        has_pairs=_has_pairs(manifest),
        fingerprint=manifest.fingerprint(),
    )


def _has_pairs(manifest: Manifest) -> bool | None:
    columns = (manifest.config.model_extra or {}).get("text_column")
    if columns:
        return len(columns) == 2
    return len(get_task(manifest.config.task).text_columns) == 2 if manifest.config.task else None


def wait_for_commit(store: Store, shard: int, total: int, timeout_seconds: float, writer: str = JOB) -> Commit:
    """The commit of a shard; waits as long as the output keeps growing. Raises TrainingError when it stops growing.

    writer: what writes the shards, for the message.
    """
    name = commit_name(shard)
    _wait(
        lambda: store.exists(name),
        growth=lambda: len(store.list("commits")),
        timeout_seconds=timeout_seconds,
        complaint=lambda: (
            f"{store.uri} stopped growing: shard {shard} of {total} is missing and nothing new has arrived for "
            f"{timeout_seconds:.0f} seconds (--follow-timeout). If {writer} is no longer running, restart it, then "
            "run this command again"
        ),
    )
    return read_commit(store, name)


def sampled(
    table: pa.Table, augmented: Augmented, n_a: int | None, epoch: int, carried: Sequence[str] = ()
) -> pa.Table:
    """A shard's source rows (n = 0) and their samples 1 <= n <= `n_a` (default: the job's N_a for the row).

    Samples are read, or drawn from candidate sets: in epoch 0 those that `--emit samples` would have written, in each
    later epoch new ones. Columns: at least source_id, n, text_a, text_b, label, and the `carried` input columns, which
    a sample takes from its source row.
    """
    if not augmented.emits_candidates:
        return table if n_a is None else table.filter(pc.less_equal(table["n"], n_a))
    params = augmented.params
    found = read_candidates(table)
    of_rows = augmented.quotas.of_rows(table["label"].to_pylist(), params.n_a)
    drawn = of_rows if n_a is None else np.maximum(of_rows, n_a)
    params = params.model_copy(update={"seed": epoch_seed(params.seed, epoch)})
    samples = draw_samples(found, params, drawn).first(of_rows if n_a is None else n_a)
    rendered = render_samples(found, samples)
    order = ShardOrder.of(len(found), samples)
    row = pa.array(order.row)
    return pa.table(
        {
            "source_id": table["source_id"].take(row),
            "n": pa.array(order.n.astype(np.int32)),
            "text_a": order.interleave(table["text_a"].combine_chunks(), rendered.text_a),
            "text_b": order.interleave(table["text_b"].combine_chunks(), rendered.text_b),
            "label": table["label"].take(row),
        }
        | {name: table[name].take(row) for name in carried}
    )


def read_candidates(table: pa.Table) -> list[RowCandidates]:
    """Candidate sets of the rows of a candidate shard."""
    texts = []
    for side in ("a", "b"):
        bases, sites = table[f"base_{side}"].to_pylist(), table[f"sites_{side}"].to_pylist()
        texts.append(
            [
                None if base is None else TextCandidates(base, _sites(own))
                for base, own in zip(bases, sites, strict=True)
            ]
        )
    ids = table["source_id"].to_pylist()
    return [
        RowCandidates(source_id, first, second)
        for source_id, first, second in zip(ids, *texts, strict=True)
        if first is not None
    ]


def _sites(sets: Sequence[dict[str, Any]] | None) -> tuple[Site, ...]:
    return tuple(
        Site(one["start"], one["end"], one["word"], one["origin"], tuple(one["candidates"]), tuple(one["scores"]))
        for one in sets or ()
    )


def _wait(
    is_there: Callable[[], bool],
    *,
    growth: Callable[[], int],
    timeout_seconds: float,
    complaint: Callable[[], str],
) -> None:
    """Poll until `is_there`. Raises TrainingError when `growth` has not changed for the timeout."""
    last, since = -1, time.monotonic()
    while not is_there():
        if (now := growth()) != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since >= timeout_seconds:
            raise TrainingError(complaint())
        time.sleep(min(POLL_SECONDS, max(timeout_seconds, 0.01)))
