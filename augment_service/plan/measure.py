"""The measurements of a plan: runs sampled rows through the models in as many processes as a node would have actors."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence

import pyarrow as pa

from augment_service.config import PlanConfig
from augment_service.plan.budget import COUNT_SHARE, LENGTHS_SHARE, SPARE_SECONDS, WARM_UP_ROWS
from augment_service.plan.calibrate import Bench, VectorBench
from augment_service.plan.estimate import Block, Loaded, Measurement, Passes, SecondsByLength, merge, typical_lengths
from augment_service.plan.gpus import NO_GPU
from augment_service.plan.processes import OwnProcess, each, own_processes
from augment_service.plan.sample import Sample
from shared.errors import ClusterError, InputError
from shared.inputs.sources import Source
from shared.schema import candidates_schema, samples_schema


def measure(
    config: PlanConfig, source: Source, sample: Sample, num_processes: int, planning_since: float
) -> Measurement:
    """Measure in `num_processes` processes at once, because actors also share the machine's memory and caches.

    planning_since: when the plan began, by `time.monotonic()`; it must end `--calibrate-seconds` later.
    Raises ModelError, InputError, ClusterError.
    """

    def left() -> float:
        return max(planning_since + config.calibrate_seconds - SPARE_SECONDS - time.monotonic(), 0.0)

    began, is_for_gpu = time.monotonic(), config.gpu.lower() != NO_GPU
    with own_processes(num_processes, Bench, config.mlm_threads) as benches:
        loaded = _load(config, benches)
        start_seconds = time.monotonic() - began
        if not is_for_gpu:
            start_seconds += _ray_start_seconds()
        counted, counted_rows = _count(sample, benches, left() * COUNT_SHARE)
        # GPU time is derived from FLOPs; how CPU time depends on the length is irrelevant to it.
        curve = None if is_for_gpu else _time_lengths(counted, benches, left() * LENGTHS_SHARE)
        blocks = _time_rows(config, source, sample, benches, left())
    return Measurement(
        loaded=loaded[0],
        num_processes=num_processes,
        counted=counted,
        counted_rows=counted_rows,
        curve=curve,
        blocks=blocks,
        start_seconds=start_seconds,
    )


def _load(config: PlanConfig, benches: Sequence[OwnProcess[Bench]]) -> list[Loaded]:
    # A run has one more process, for the vectors. It starts at the same time and competes for the cores.
    with own_processes(1, VectorBench, config.mlm_threads) as (vectors,):
        vectors.start(VectorBench.load, config.glove, config.glove_limit)
        loaded = each(benches, Bench.load, [(config,)] * len(benches))
        vectors.result()
    return loaded


def _count(sample: Sample, benches: Sequence[OwnProcess[Bench]], seconds: float) -> tuple[list[Passes], int]:
    """The passes of each counted shard, and the number of input rows in these shards."""
    mixed = random.Random(0).sample(range(len(sample.shards)), len(sample.shards))
    places = [mixed[number :: len(benches)] for number in range(len(benches))]
    parts = [([sample.shards[place] for place in mine], seconds) for mine in places if mine]
    found = each(benches[: len(parts)], Bench.count, parts)
    done = [place for mine, passes in zip(places, found, strict=False) for place in mine[: len(passes)]]
    counted = [one for passes in found for one in passes]
    if not any(part.by_length for part in counted):
        raise InputError("the sampled rows contain no word that the masked LM would replace")
    return counted, sum(sample.positions_of[place] for place in done)


def _time_lengths(counted: Sequence[Passes], benches: Sequence[OwnProcess[Bench]], seconds: float) -> SecondsByLength:
    inputs = typical_lengths(merge(counted))
    parts = [(inputs, seconds)] * len(benches)
    times = zip(*each(benches, Bench.time_inputs, parts), strict=True)
    means = [sum(column) / len(benches) for column in times]
    return SecondsByLength({one.length: seconds for one, seconds in zip(inputs, means, strict=True)})


def _time_rows(
    config: PlanConfig, source: Source, sample: Sample, benches: Sequence[OwnProcess[Bench]], seconds: float
) -> list[Block]:
    rows = [row for shard in sample.shards for row in shard]
    count = min(len(rows), config.shard_rows + WARM_UP_ROWS)
    schema = _schema(config, source)
    parts = [(random.Random(number).sample(rows, count), schema, seconds) for number in range(len(benches))]
    return [block for found in each(benches, Bench.time_rows, parts) for block in found]


def _schema(config: PlanConfig, source: Source) -> pa.Schema:
    make = candidates_schema if config.emit == "candidates" else samples_schema
    return make(source.label_type, list(source.rest_fields))


def _ray_start_seconds() -> float:
    """Seconds to start a local Ray, as a run on this machine would. Raises ClusterError."""
    code = "import ray; ray.init(address='local', include_dashboard=False, log_to_driver=False, logging_level='ERROR')"
    began = time.monotonic()
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    if finished.returncode != 0:
        raise ClusterError(f"Ray cannot be started on this machine: {finished.stderr.strip().splitlines()[-1][:300]}")
    return time.monotonic() - began
