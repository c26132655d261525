"""The measurements of a plan: sampled rows go through the models in as many processes as a node would have actors."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence

import pyarrow as pa

from augment_service.config import PlanConfig
from augment_service.plan.calibrate import WARM_UP_ROWS, Bench, VectorBench
from augment_service.plan.estimate import Block, Loaded, Measurement, Passes, SecondsByLength, merge, typical_lengths
from augment_service.plan.gpus import NO_GPU
from augment_service.plan.processes import OwnProcess, each, own_processes
from augment_service.plan.sample import Sample
from shared.errors import ClusterError, InputError
from shared.inputs.sources import Source
from shared.schema import candidates_schema, samples_schema

LENGTHS_SHARE = 0.3
"""Share of `--calibrate-seconds` for single lengths; the rest is for rows."""


def measure(config: PlanConfig, source: Source, sample: Sample, num_processes: int) -> Measurement:
    """Measure in `num_processes` processes at once, since actors share the machine's memory and caches, too.

    Raises ModelError, InputError, ClusterError.
    """
    began = time.monotonic()
    with own_processes(num_processes, Bench, config.mlm_threads) as benches:
        loaded = _load(config, benches)
        start_seconds = time.monotonic() - began
        if config.gpu.lower() == NO_GPU:
            start_seconds += _ray_start_seconds()
        counted = _count(sample, benches)
        curve = _time_lengths(config, counted, benches)
        blocks = _time_rows(config, source, sample, benches)
    return Measurement(
        loaded=loaded[0],
        num_processes=num_processes,
        counted=counted,
        counted_rows=sample.positions,
        curve=curve,
        blocks=blocks,
        start_seconds=start_seconds,
    )


def _load(config: PlanConfig, benches: Sequence[OwnProcess[Bench]]) -> list[Loaded]:
    # A run has one more process, for the vectors. It starts at the same time and takes its share of the cores.
    with own_processes(1, VectorBench, config.mlm_threads) as (vectors,):
        vectors.start(VectorBench.load, config.glove, config.glove_limit)
        loaded = each(benches, Bench.load, [(config,)] * len(benches))
        vectors.result()
    return loaded


def _count(sample: Sample, benches: Sequence[OwnProcess[Bench]]) -> list[Passes]:
    parts = [(sample.shards[place :: len(benches)],) for place in range(len(benches))]
    counted = [one for found in each(benches, Bench.count, parts) for one in found]
    if not any(part.by_length for part in counted):
        raise InputError("the rows that were sampled have no word that the masked LM would replace")
    return counted


def _time_lengths(
    config: PlanConfig, counted: Sequence[Passes], benches: Sequence[OwnProcess[Bench]]
) -> SecondsByLength:
    inputs = typical_lengths(merge(counted))
    parts = [(inputs, config.calibrate_seconds * LENGTHS_SHARE)] * len(benches)
    times = zip(*each(benches, Bench.time_inputs, parts), strict=True)
    means = [sum(column) / len(benches) for column in times]
    return SecondsByLength({one.length: seconds for one, seconds in zip(inputs, means, strict=True)})


def _time_rows(config: PlanConfig, source: Source, sample: Sample, benches: Sequence[OwnProcess[Bench]]) -> list[Block]:
    rows = [row for shard in sample.shards for row in shard]
    count, seconds = min(len(rows), config.shard_rows + WARM_UP_ROWS), config.calibrate_seconds * (1 - LENGTHS_SHARE)
    schema = _schema(config, source)
    parts = [(random.Random(number).sample(rows, count), schema, seconds) for number in range(len(benches))]
    return [block for found in each(benches, Bench.time_rows, parts) for block in found]


def _schema(config: PlanConfig, source: Source) -> pa.Schema:
    make = candidates_schema if config.emit == "candidates" else samples_schema
    return make(source.label_type, list(source.rest_fields))


def _ray_start_seconds() -> float:
    """Seconds that a local Ray takes to start, as a run on this machine would start one. Raises ClusterError."""
    code = "import ray; ray.init(address='local', include_dashboard=False, log_to_driver=False, logging_level='ERROR')"
    began = time.monotonic()
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    if finished.returncode != 0:
        raise ClusterError(f"Ray does not start on this machine: {finished.stderr.strip().splitlines()[-1][:300]}")
    return time.monotonic() - began
