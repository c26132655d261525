"""The metrics of a job and their meanings, in one table for the code, the dashboards and the docs.

A job exports them through Ray: Ray's Prometheus endpoint on every node serves them with the prefix `ray_` (as in
`ray_augment_rows_total`) and adds its own labels, such as `NodeAddress` and `WorkerId`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]

SECONDS_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. where: the kind of process that updates it; labels: in addition to Ray's own."""

    name: str
    kind: Kind
    help: str
    where: Literal["driver", "actor"]
    labels: tuple[str, ...] = ("job",)


JOB_METRICS = (
    Metric("augment_rows_total", "counter", "Source rows committed, including quarantined ones.", "actor"),
    Metric("augment_samples_total", "counter", "Samples committed, not counting the source rows.", "actor"),
    Metric("augment_shards_total", "counter", "Shards committed.", "actor"),
    Metric("augment_model_inputs_total", "counter", "Distinct sequences that went through the masked LM.", "actor"),
    Metric("augment_model_tokens_total", "counter", "Tokens that went through the masked LM.", "actor"),
    Metric("augment_quarantined_rows_total", "counter", "Rows left out; quarantine files give the reasons.", "actor"),
    Metric("augment_masked_lm_batch_seconds", "histogram", "Time of one model batch.", "actor"),
    Metric("augment_shard_seconds", "histogram", "Time of one shard, from rows to commit.", "actor"),
    Metric("augment_batch_fill_ratio", "gauge", "Tokens per model batch over --batch-tokens, last shard.", "actor"),
    Metric("augment_busy_ratio", "gauge", "Share of an actor's time spent in the masked LM, last shard.", "actor"),
    Metric("augment_halved_batches_total", "counter", "Batches split in halves because memory ran out.", "actor"),
    Metric("augment_shards_left", "gauge", "Shards without a commit, that is, the depth of the queue.", "driver"),
    Metric("augment_shards_in_flight", "gauge", "Shards given to actors but not committed yet.", "driver"),
    Metric("augment_actors", "gauge", "Masked-LM actors by state: ready or starting.", "driver", ("job", "state")),
    Metric(
        "augment_retries_total",
        "counter",
        "Shards handed out again, by reason: actor_lost, vectors_lost, speculative, poison_hunt, store, out_of_memory.",
        "driver",
        ("job", "reason"),
    ),
)
