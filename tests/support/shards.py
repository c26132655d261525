"""Small shards, and complete output folders made of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from augment_service.job.assemble import samples_table
from shared.candidates import RowCandidates, Site, TextCandidates
from shared.inputs.rows import SourceRow
from shared.manifest import write_or_check
from shared.params import AugmentParams
from shared.sampling import draw_samples
from shared.schema import samples_schema
from shared.shards import list_commits, write_shard
from shared.storage.store import LocalStore
from shared.success import write_success
from shared.totals import total
from tests.support.manifests import small_manifest

SCHEMA = samples_schema(pa.int64(), [])


def table_of(text: str, source_id: int = 0) -> pa.Table:
    """The source and samples of one row whose whole text is one word."""
    sites = (Site(0, len(text), text, "mlm", ("é", "漢字", "😀"), (3.0, 2.0, 1.0)),) if text else ()
    found = [RowCandidates(source_id, TextCandidates(text, sites))]
    samples = draw_samples(found, AugmentParams(n_a=3, p_t=0.5))
    return samples_table(SCHEMA, [SourceRow(source_id, text, None, 1)], found, samples)


def filled(folder: Path, num_shards: int = 3, quarantined: int = 0) -> LocalStore:
    """A complete output folder with one row per shard, and a quarantined row in each of the first `quarantined`."""
    store = LocalStore(str(folder))
    manifest = small_manifest(num_shards, schema=SCHEMA)
    manifest = replace(manifest, plan=replace(manifest.plan, rows=num_shards + quarantined))
    write_or_check(store, manifest)
    for shard in range(num_shards):
        records = [{"position": shard, "reason": "é"}] if shard < quarantined else []
        write_shard(store, shard, table_of(f"word{shard}", shard), 1, records, {"samples": 3})
    write_success(store, total(list_commits(store)))
    return store
