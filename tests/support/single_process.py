"""The expected result of a job: its shards written one by one by the bare engine, in this process, without Ray."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

from augment_service.config import RunConfig
from augment_service.engine.augment import AugmentEngine
from augment_service.engine.glove import GloveVectors
from augment_service.engine.masked_lm import MaskedLM
from augment_service.job.assemble import sample_statistics, samples_table
from augment_service.job.shard_work import shard_schema, shard_work
from shared.inputs.options import from_config
from shared.inputs.sources import open_source
from shared.shards import write_shard
from shared.storage.store import open_store


def write_single_process(config: RunConfig) -> float:
    """Write all shards of a job; returns the seconds that took once the models were loaded."""
    source, store = open_source(from_config(config)), open_store(config.output)
    schema = shard_schema(source, config.emit)
    masked_lm = MaskedLM.load(config.mlm, config.device, config.dtype, config.mlm_threads)
    vectors = GloveVectors.load(config.glove, config.glove_limit)
    engine = AugmentEngine(masked_lm, vectors, config.params(), quotas=config.quotas)
    began = time.monotonic()
    for work in shard_work(source, config.shard_rows, set(range(-(-source.num_rows // config.shard_rows)))):
        found, samples = engine.samples(work.rows)
        table = samples_table(schema, work.rows, found, samples)
        records = [asdict(one) for one in work.quarantined]
        write_shard(store, work.shard, table, len(work.rows), records, sample_statistics(found, samples))
    return time.monotonic() - began


def result_of(output: Path) -> dict[str, bytes]:
    """The shard and quarantine files of an output: name -> content."""
    files = (path for folder in ("shards", "quarantine") for path in (output / folder).glob("*"))
    return {str(path.relative_to(output)): path.read_bytes() for path in files if path.is_file()}
