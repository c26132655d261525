"""A plan as JSON for `--json` and as readable text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from augment_service.plan.budget import relative_error
from augment_service.plan.estimate import Block, Measurement, Work, core_share
from augment_service.plan.gpus import Gpu
from augment_service.plan.sample import Sample
from shared.cli.progress import counted, format_seconds

BUSY_BELOW = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run: its work, where it runs, and how long it takes.

    seconds, start_seconds: wall-clock time; model_seconds, vector_seconds: total over all actors; utilisation: assumed,
    used only with a GPU.
    """

    work: Work
    nodes: int
    gpu: Gpu | None
    utilisation: float
    batch_tokens: int
    actors: int
    seconds: float
    start_seconds: float
    model_seconds: float
    vector_seconds: float


def plan_summary(plan: Plan, sample: Sample, measured: Measurement) -> dict[str, Any]:
    """The output of `--json`."""
    work, gpu, loaded = plan.work, plan.gpu, measured.loaded
    curve = measured.curve.measured if measured.curve else {}
    summary: dict[str, Any] = {
        "rows": work.rows,
        "quarantined": round(work.rows * sample.quarantined / sample.positions),
        "shards": work.shards,
        "shard_rows": work.shard_rows,
        "masked_passes": round(work.inputs),
        "model_tokens": round(work.tokens),
        "model_flops": work.encoder_flops + work.head_flops,
        "samples": round(work.samples),
        "bytes": round(work.num_bytes),
        "nodes": plan.nodes,
        "gpu": gpu.name if gpu else "none",
        "actors": plan.actors,
        "seconds": round(plan.seconds, 1),
        "hours": plan.seconds / 3600,
        "start_seconds": round(plan.start_seconds, 1),
        "model_actor_seconds": round(plan.model_seconds, 1),
        "vector_actor_seconds": round(plan.vector_seconds, 1),
        "other_actor_seconds": round(work.rest_seconds, 1),
        "counted_rows": measured.counted_rows,
        "relative_errors": {
            "model_tokens": _rounded(relative_error([(1, one.tokens) for one in measured.counted])),
            "measured_seconds": _rounded(relative_error([(one.rows, _seconds(plan, one)) for one in measured.blocks])),
        },
        "measured": {
            "device": loaded.device,
            "dtype": loaded.dtype,
            "processes": measured.num_processes,
            "rows": sum(block.rows for block in measured.blocks),
            "core_share": round(core_share(measured.blocks), 3),
            "tokens_per_second": round(work.tokens / max(work.cpu_model_seconds, 1e-9), 1),
            "seconds_per_input": [[length, seconds] for length, seconds in curve.items()],
        },
    }
    if gpu:
        summary["assumed"] = {
            "bf16_flops": gpu.bf16,
            "fp32_flops": gpu.fp32,
            "utilisation": plan.utilisation,
            "batch_tokens": plan.batch_tokens,
        }
    return summary


def plan_text(summary: dict[str, Any]) -> str:
    """The summary as readable text."""
    measured = summary["measured"]
    where = (
        f"{counted(summary['nodes'], 'node')} with "
        f"{summary['gpu'] if summary['gpu'] != 'none' else 'CPUs like those of this machine'}, "
        f"{counted(summary['actors'], 'actor')}"
    )
    parts = [summary[f"{part}_actor_seconds"] for part in ("model", "vector", "other")]
    model_share = parts[0] / max(sum(parts), 1e-9)
    lines = [
        f"{summary['rows']:,} rows in {counted(summary['shards'], 'shard')} of {summary['shard_rows']}, "
        f"about {summary['quarantined']:,} to be quarantined",
        f"masked passes  {summary['masked_passes']:,} with {summary['model_tokens']:,} tokens in total, "
        f"{summary['model_flops']:.2e} FLOP (from {summary['counted_rows']:,} rows)",
        f"output         {summary['samples']:,} samples, {summary['bytes'] / 1e6:,.1f} MB",
        f"time           {format_seconds(summary['seconds'])} ({summary['hours']:.2f} hours) on {where}; "
        f"{model_share:.0%} of an actor's time in the model, {summary['start_seconds']:.0f} s to start",
        f"measured here  {measured['rows']} rows in {counted(measured['processes'], 'process', 'processes')} "
        f"({measured['device']}, {measured['dtype']}): {measured['tokens_per_second']:,.0f} tokens/s each in the model",
    ]
    if (errors := summary["relative_errors"])["measured_seconds"] is not None:
        tokens = f"within {errors['model_tokens']:.0%}" if errors["model_tokens"] is not None else "unknown"
        lines.append(
            f"accuracy       tokens {tokens}, measured seconds within {errors['measured_seconds']:.0%} (two standard "
            "errors of the sample; --calibrate-seconds sets its size)"
        )
    if assumed := summary.get("assumed"):
        lines.append(
            f"assumed        {summary['gpu']}: {assumed['bf16_flops'] / 1e12:,.0f} TFLOP/s in bf16 and "
            f"{assumed['fp32_flops'] / 1e12:,.0f} in fp32 (data sheet), of which {assumed['utilisation']:.0%} is used, "
            f"batches of {assumed['batch_tokens']:,} tokens. None of this was measured on a GPU"
        )
    if measured["core_share"] < BUSY_BELOW:
        lines.append(
            f"this machine was busy: each process got {measured['core_share']:.0%} of a core while it was timed. The "
            "plan assumes an idle machine"
        )
    if summary["shards"] < summary["actors"]:
        lines.append(
            f"only {summary['shards']} of {summary['actors']} actors will have work; use a smaller --shard-rows"
        )
    return "\n".join(lines)


def _seconds(plan: Plan, block: Block) -> float:
    """The seconds of a block that the plan scales up: with a GPU, those outside the model."""
    return block.seconds - block.model_seconds if plan.gpu else block.seconds


def _rounded(error: float | None) -> float | None:
    return None if error is None else round(error, 4)
