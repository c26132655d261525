"""A valid manifest for tests that need an output folder but no job."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from shared.cli.table_format import DETECTED, ONE_LABEL
from shared.manifest import JobConfig, Manifest, ShardPlan
from shared.params import AugmentParams


def small_manifest(rows: int, shard_rows: int = 1, schema: pa.Schema | None = None, **options: Any) -> Manifest:
    """The manifest of a job over `rows` rows; `options` change its configuration."""
    config = AugmentParams().model_dump(mode="json") | DETECTED | ONE_LABEL | {"emit": "samples", "task": None}
    return Manifest(
        config=JobConfig(**config | options),
        inputs=(),
        models={},
        plan=ShardPlan.cut(rows, shard_rows),
        schema=tuple(f"{one.name}: {one.type}" for one in schema or ()),
    )
