"""The `plan` command: what a run would take, before the run.

Counts words and model inputs in some whole shards, runs a few rows through the models in as many processes as a run
would have actors here, and scales both up. Reads the whole input once, as the run will, to count its rows.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from augment_service.config import PlanConfig
from augment_service.plan.estimate import (
    Block,
    Loaded,
    Passes,
    SecondsByLength,
    Work,
    core_share,
    gpu_model_seconds,
    merge,
    typical_lengths,
    wall_seconds,
    whole_job,
)
from augment_service.plan.gpus import UTILISATION, Gpu, find_gpu
from shared.cli.command_line import CommandResult
from shared.cli.progress import format_seconds
from shared.errors import ClusterError, InputError
from shared.glue import get_task
from shared.inputs.options import from_config
from shared.inputs.rows import SourceRow
from shared.inputs.sources import Source, open_source
from shared.schema import candidates_schema, samples_schema

COUNTED_ROWS = 16_384
LENGTHS_SHARE = 0.3
NOT_BUSY = 0.9


@dataclass(frozen=True, slots=True)
class _Sample:
    """Whole shards of the input: their usable rows, the places they take, and how many rows were left out."""

    shards: list[list[SourceRow]]
    places: int
    quarantined: int


@dataclass(frozen=True, slots=True)
class _Calibration:
    """What was measured: counted passes of each shard, and the figures of all processes."""

    loaded: Loaded
    processes: int
    counted: list[Passes]
    curve: SecondsByLength
    blocks: list[Block]
    start_seconds: float


def run_command(config: PlanConfig) -> CommandResult:
    """`augment_service plan`. Raises ExpectedError."""
    gpu = find_gpu(config.gpu)
    if config.task and "n_a" not in config.model_fields_set:
        config = config.model_copy(update={"n_a": get_task(config.task).n_a})
    # What is measured here is this machine's CPUs, whatever the run will compute on.
    config = config.model_copy(update={"device": "cpu"})
    began = time.monotonic()
    source = open_source(from_config(config))
    survey_seconds = time.monotonic() - began
    sample = _sample(source, config)
    measured = _calibrate(config, source, sample, 1 if gpu else _actors_of_a_node(config))
    work = whole_job(
        source.num_rows, config.shard_rows, measured.counted, sample.places, measured.loaded.cost, measured.curve,
        measured.blocks, _pace(config, measured.blocks),
    )  # fmt: skip
    summary = _summary(config, gpu, work, sample, measured, survey_seconds)
    return CommandResult(summary, _text(summary))


def _pace(config: PlanConfig, blocks: Sequence[Block]) -> float:
    """What one measured second counts: on a busy machine a process waits for its core, and the job need not.

    With several threads per actor the processor time says nothing about waiting, so seconds stay as they were measured.
    """
    return core_share(blocks) if config.mlm_threads == 1 else 1.0


def _actors_of_a_node(config: PlanConfig) -> int:
    """Actors of one node like this machine, as `run` would start them."""
    if config.mlm_actors:
        return -(-config.mlm_actors // config.nodes)
    return max((os.cpu_count() or 1) // config.mlm_threads, 1)


def _sample(source: Source, config: PlanConfig) -> _Sample:
    """Some whole shards, drawn evenly; the same ones every time."""
    num_shards = -(-source.num_rows // config.shard_rows)
    wanted = min(max(COUNTED_ROWS // config.shard_rows, 4), num_shards)
    chosen = {shard: place for place, shard in enumerate(sorted(random.Random(0).sample(range(num_shards), wanted)))}
    shards: list[list[SourceRow]] = [[] for _ in chosen]
    places = 0
    for position, item in enumerate(source.rows()):
        place = chosen.get(position // config.shard_rows)
        if place is not None:
            places += 1
            if isinstance(item, SourceRow):
                shards[place].append(item)
    if not any(shards):
        raise InputError(f"none of {places} rows that were looked at can be used; `run` would quarantine them")
    return _Sample(shards, places, places - sum(map(len, shards)))


def _calibrate(config: PlanConfig, source: Source, sample: _Sample, processes: int) -> _Calibration:
    """Measure in `processes` processes at once, since actors share the machine's memory and caches as well."""
    from augment_service.plan import calibrate

    make_schema = candidates_schema if config.emit == "candidates" else samples_schema
    schema = make_schema(source.label_type, list(source.rest_fields))
    rows = [row for shard in sample.shards for row in shard]
    with _processes(processes, config.mlm_threads) as pools:
        # One more process holds the vectors in a run; it starts beside the others and takes its share of the cores.
        began = time.monotonic()
        with _processes(1, config.mlm_threads) as (vectors,):
            loading = vectors.submit(calibrate.load_vectors, config.glove, config.glove_limit)
            loaded = _everywhere(pools, calibrate.load, [(config,)] * processes)
            loading.result()
        load_seconds = time.monotonic() - began
        ray_seconds = _ray_start_seconds() if config.gpu.lower() == "none" else 0.0
        parts = [(sample.shards[place::processes],) for place in range(processes)]
        counted = [one for found in _everywhere(pools, calibrate.count, parts) for one in found]
        if not any(part.by_length for part in counted):
            raise InputError("no word of the rows that were looked at would be asked of the masked LM")
        lengths = typical_lengths(merge(counted))
        seconds = config.calibrate_seconds
        timed = _everywhere(pools, calibrate.time_lengths, [(lengths, seconds * LENGTHS_SHARE)] * processes)
        mean = [sum(column) / processes for column in zip(*timed, strict=True)]
        curve = SecondsByLength(list(zip([length for length, _ in lengths], mean, strict=True)))
        chosen = [
            random.Random(number).sample(rows, min(len(rows), config.shard_rows + calibrate.WARM_UP_ROWS))
            for number in range(processes)
        ]
        timed_rows = [(part, schema, seconds * (1 - LENGTHS_SHARE)) for part in chosen]
        blocks = [block for found in _everywhere(pools, calibrate.time_rows, timed_rows) for block in found]
    return _Calibration(loaded[0], processes, counted, curve, blocks, load_seconds + ray_seconds)


@contextmanager
def _processes(count: int, threads: int) -> Iterator[list[ProcessPoolExecutor]]:
    """Executors of one process each, so that every process gets its own part. Raises ClusterError when one dies."""
    context = multiprocessing.get_context("spawn")
    before = os.environ.get("OMP_NUM_THREADS")
    # As Ray does for an actor; the processes read it when they start.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        with ExitStack() as stack:
            yield [stack.enter_context(ProcessPoolExecutor(1, mp_context=context)) for _ in range(count)]
    except BrokenProcessPool as error:
        raise ClusterError(
            "a process of the calibration died, most likely for want of memory: fewer --mlm-actors, or a smaller "
            "--batch-tokens"
        ) from error
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _everywhere(pools: Sequence[ProcessPoolExecutor], function: Any, parts: Sequence[tuple[Any, ...]]) -> list[Any]:
    """One call per process, all at once; their answers in order."""
    calls = [pool.submit(function, *part) for pool, part in zip(pools, parts, strict=True)]
    return [call.result() for call in calls]


def _ray_start_seconds() -> float:
    """How long a Ray of our own takes to start, which a run on this machine begins with."""
    code = "import ray; ray.init(address='local', include_dashboard=False, log_to_driver=False, logging_level='ERROR')"
    began = time.monotonic()
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    if finished.returncode != 0:
        raise ClusterError(f"Ray does not start here: {finished.stderr.strip().splitlines()[-1][:300]}")
    return time.monotonic() - began


def _summary(
    config: PlanConfig, gpu: Gpu | None, work: Work, sample: _Sample, measured: _Calibration, survey_seconds: float
) -> dict[str, Any]:
    loaded = measured.loaded
    utilisation = config.utilisation or UTILISATION
    if gpu:
        gpus = config.nodes * config.gpus_per_node
        actors = config.mlm_actors or max(int(gpus / config.mlm_gpus), 1)
        in_bf16 = config.dtype != "fp32"
        model = gpu_model_seconds(work, gpu, utilisation, in_bf16, loaded.cost.layers, config.batch_tokens)
        # Actors that share a GPU wait for each other there, and overlap in all the rest.
        model *= max(actors / gpus, 1.0)
    else:
        actors = config.mlm_actors or config.nodes * _actors_of_a_node(config)
        model = work.cpu_model_seconds
    # The vectors of every node look each word up once.
    others = work.rest_seconds + work.vector_seconds * config.nodes
    start = survey_seconds + measured.start_seconds
    seconds = start + wall_seconds(work, model + others, actors)
    summary = {
        "rows": work.rows,
        "quarantined": round(work.rows * sample.quarantined / sample.places),
        "shards": work.shards,
        "shard_rows": work.shard_rows,
        "masked_passes": round(work.inputs),
        "model_tokens": round(work.tokens),
        "model_flops": work.encoder_flops + work.head_flops,
        "samples": round(work.samples),
        "bytes": round(work.num_bytes),
        "nodes": config.nodes,
        "gpu": gpu.name if gpu else "none",
        "actors": actors,
        "seconds": round(seconds, 1),
        "hours": seconds / 3600,
        "start_seconds": round(start, 1),
        "model_actor_seconds": round(model, 1),
        "vector_actor_seconds": round(work.vector_seconds * config.nodes, 1),
        "other_actor_seconds": round(work.rest_seconds, 1),
        "counted_rows": sample.places,
        "measured": {
            "device": loaded.device,
            "dtype": loaded.dtype,
            "processes": measured.processes,
            "rows": sum(block.rows for block in measured.blocks),
            "core_share": round(core_share(measured.blocks), 3),
            "tokens_per_second": round(work.tokens / max(work.cpu_model_seconds, 1e-9), 1),
            "seconds_per_input": [[length, seconds] for length, seconds in measured.curve.measured],
        },
    }
    if gpu:
        summary["assumed"] = {
            "bf16_flops": gpu.bf16,
            "fp32_flops": gpu.fp32,
            "utilisation": utilisation,
            "batch_tokens": config.batch_tokens,
        }
    return summary


def _text(plan: dict[str, Any]) -> str:
    measured = plan["measured"]
    where = (
        f"{plan['nodes']} node{'s' if plan['nodes'] > 1 else ''} with "
        + (f"{plan['gpu']}" if plan["gpu"] != "none" else "this machine's CPUs")
        + f", {plan['actors']} actor{'s' if plan['actors'] > 1 else ''}"
    )
    parts = [plan[f"{part}_actor_seconds"] for part in ("model", "vector", "other")]
    share = parts[0] / max(sum(parts), 1e-9)
    lines = [
        f"{plan['rows']:,} rows in {plan['shards']:,} shards of {plan['shard_rows']}, "
        f"about {plan['quarantined']:,} to quarantine",
        f"masked passes  {plan['masked_passes']:,} of {plan['model_tokens']:,} pieces in all, "
        f"{plan['model_flops']:.2e} FLOP (from {plan['counted_rows']:,} rows)",
        f"output         {plan['samples']:,} samples, {plan['bytes'] / 1e6:,.1f} MB",
        f"time           {format_seconds(plan['seconds'])} ({plan['hours']:.2f} hours) on {where}; "
        f"{share:.0%} of an actor's time in the model, {plan['start_seconds']:.0f} s to start",
        f"measured here  {measured['rows']} rows in {measured['processes']} processes ({measured['device']}, "
        f"{measured['dtype']}): {measured['tokens_per_second']:,.0f} pieces/s each in the model",
    ]
    if assumed := plan.get("assumed"):
        lines.append(
            f"assumed        {plan['gpu']}: {assumed['bf16_flops'] / 1e12:,.0f} TFLOP/s in bf16 and "
            f"{assumed['fp32_flops'] / 1e12:,.0f} in fp32 by data sheet, {assumed['utilisation']:.0%} of it reached, "
            f"batches of {assumed['batch_tokens']:,} pieces. None of this was measured on a GPU"
        )
    if measured["core_share"] < NOT_BUSY:
        lines.append(
            f"this machine was busy: a process had {measured['core_share']:.0%} of a core while it was timed. The plan "
            "is for one that is not"
        )
    if plan["shards"] < plan["actors"]:
        lines.append(f"only {plan['shards']} of {plan['actors']} actors have work: a smaller --shard-rows spreads it")
    return "\n".join(lines)
