"""The `plan` command: time and storage of a run, estimated before the run.

Counts words and model inputs in some whole shards, runs a few rows through the models in as many processes as a run
would have actors on this machine, and extrapolates both. Reads the whole input once, as a run does, to count its rows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from augment_service.config import PlanConfig
from augment_service.engine.presence import check_models_exist
from augment_service.plan.estimate import (
    Block,
    Measurement,
    Work,
    core_share,
    gpu_model_seconds,
    wall_seconds,
    whole_job,
)
from augment_service.plan.gpus import UTILISATION, Gpu, find_gpu
from augment_service.plan.sample import draw_sample
from augment_service.plan.summary import Plan, plan_summary, plan_text
from shared.cli.command_line import CommandResult
from shared.inputs.options import from_config
from shared.inputs.sources import open_source

MEASURED_BATCH_TOKENS = 1024
"""Largest batch of the measurement."""
ASSUMED_ON_GPU = 16_384
"""Assumed tokens per batch on a GPU, where the run will measure the best size."""


def run_command(config: PlanConfig) -> CommandResult:
    """`augment_service plan`. Raises ExpectedError."""
    gpu = find_gpu(config.gpu)
    options = from_config(config)
    config = config.with_n_a_of(options.task)
    # Always measure on this machine's CPUs, whatever device the run will use.
    config = config.model_copy(update={"device": "cpu"})
    check_models_exist(config.mlm, config.glove)
    began = time.monotonic()
    source = open_source(options)
    survey_seconds = time.monotonic() - began
    sample = draw_sample(source, config)

    # Imported late because it loads torch: errors in the options or the input should be reported at once.
    from augment_service.plan.measure import measure

    # A CPU's throughput is flat above this, and one call with GPU-sized batches would take minutes.
    batch_tokens = config.batch_tokens or (ASSUMED_ON_GPU if gpu else MEASURED_BATCH_TOKENS)
    small = config.model_copy(update={"batch_tokens": min(batch_tokens, MEASURED_BATCH_TOKENS)})
    num_processes = 1 if gpu else _actors_per_node(config)
    measured = measure(small, source, sample, num_processes, planning_since=began)
    work = whole_job(
        rows=source.num_rows, shard_rows=config.shard_rows, measured=measured, pace=_pace(config, measured.blocks)
    )
    summary = plan_summary(_plan(config, gpu, work, measured, survey_seconds, batch_tokens), sample, measured)
    return CommandResult(summary, plan_text(summary))


def _actors_per_node(config: PlanConfig) -> int:
    """Actors that `run` would start on a node like this machine."""
    if config.mlm_actors:
        return -(-config.mlm_actors // config.nodes)
    return max((os.cpu_count() or 1) // config.mlm_threads, 1)


def _pace(config: PlanConfig, blocks: Sequence[Block]) -> float:
    """Correction factor for measured seconds: on a busy machine a process waits for its core, unlike the job perhaps.

    With several threads per actor, CPU time does not reveal waiting, so seconds are used as measured.
    """
    return core_share(blocks) if config.mlm_threads == 1 else 1.0


def _plan(
    config: PlanConfig, gpu: Gpu | None, work: Work, measured: Measurement, survey_seconds: float, batch_tokens: int
) -> Plan:
    """Distribute the work over actors, on CPUs like this machine's or on GPUs."""
    utilisation = config.utilisation or UTILISATION
    if gpu:
        num_gpus = config.nodes * config.gpus_per_node
        actors = config.mlm_actors or max(int(num_gpus / config.mlm_gpus), 1)
        model_seconds = gpu_model_seconds(
            work,
            gpu,
            utilisation=utilisation,
            in_bf16=config.dtype != "fp32",
            layers=measured.loaded.cost.layers,
            batch_tokens=batch_tokens,
        )
        # Actors that share a GPU take turns in the model, and overlap in everything else.
        model_seconds *= max(actors / num_gpus, 1.0)
    else:
        actors = config.mlm_actors or config.nodes * _actors_per_node(config)
        model_seconds = work.cpu_model_seconds
    # Each node has its own vectors, so each word is looked up once per node.
    vector_seconds = work.vector_seconds * config.nodes
    start_seconds = survey_seconds + measured.start_seconds
    others = work.rest_seconds + vector_seconds
    return Plan(
        work=work,
        nodes=config.nodes,
        gpu=gpu,
        utilisation=utilisation,
        batch_tokens=batch_tokens,
        actors=actors,
        seconds=start_seconds + wall_seconds(work, model_seconds + others, actors),
        start_seconds=start_seconds,
        model_seconds=model_seconds,
        vector_seconds=vector_seconds,
    )
