"""The job: plan shards by position, check what stands in the output, have the rest done, finish.

A shard is decided by its rows alone, and committed by the actor that made it. The driver holds no sample, so it may
die at any moment: what is committed stays, and the same command goes on with the rest.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any

from augment_service.config import RunConfig
from augment_service.job.heartbeat import Heartbeat, new_run_name, read_heartbeats, remove_dead
from augment_service.job.shard_work import shard_work
from shared.cli.command_line import CommandResult
from shared.cli.logs import bind_log_fields
from shared.cli.progress import format_seconds
from shared.errors import ExpectedError, ManifestError
from shared.glue import get_task
from shared.inputs.sources import Source, open_source
from shared.manifest import MANIFEST, read_manifest, write_or_check
from shared.schema import candidates_schema, samples_schema
from shared.shards import SUCCESS, Commit, committed_shards, iter_commits, remove_orphans, revoke_damaged, write_success
from shared.storage.store import Store, open_store

logger = logging.getLogger(__name__)


def run_command(config: RunConfig) -> CommandResult:
    """`augment_service run`: augment the input into OUTPUT; resumes. Raises ExpectedError."""
    began = time.monotonic()
    if config.task and "n_a" not in config.model_fields_set:
        config = config.model_copy(update={"n_a": get_task(config.task).n_a})
    run = new_run_name()
    store = open_store(config.output, run)
    bind_log_fields(job=job_name(config.output))
    if store.exists(MANIFEST) and not config.resume:
        raise ManifestError(f"{store.uri} holds a run already; leave out --no-resume to continue it, or use another")
    source = open_source(config)
    plan = {
        "rows": source.num_rows,
        "shard_rows": config.shard_rows,
        "shards": -(-source.num_rows // config.shard_rows),
    }
    schema = (candidates_schema if config.emit == "candidates" else samples_schema)(
        source.label_type, list(source.rest_fields)
    )
    asked: dict[str, Any] = {
        "config": config.identity() | {"input": [name for name, _ in source.files]},
        "inputs": [{"file": name, "sha256": digest} for name, digest in source.files],
        "plan": plan,
        "schema": [f"{one.name}: {one.type}" for one in schema],
    }
    if store.exists(MANIFEST):
        # Before any model loads: is this the job that the folder holds?
        write_or_check(store, asked | {"models": read_manifest(store).get("models")})
    is_complete = store.exists(SUCCESS)
    missing = _missing(config, store, int(plan["shards"]), is_complete)
    if missing:
        _announce(store, plan, len(missing))
        heartbeat = Heartbeat(run, rows=source.num_rows, shards=int(plan["shards"]), shards_left=len(missing))
        heartbeat.rows_done = source.num_rows - _rows_of(missing, config.shard_rows, source.num_rows)
        _run_on_ray(config, source, schema, store, asked, missing, heartbeat)
    summary = summarise(iter_commits(store)) | {"output": store.uri, "seconds": round(time.monotonic() - began, 1)}
    if missing or not is_complete:
        remove_orphans(store, remove_dead(store, run, time.time()))
        write_success(store, {name: value for name, value in summary.items() if name not in ("seconds", "output")})
    return CommandResult(summary, _summary_text(summary, len(missing), config))


def job_name(output: str) -> str:
    """Short name of a job for logs and metrics: the last part of its output."""
    return output.rstrip("/").rpartition("/")[2] or "job"


def _missing(config: RunConfig, store: Store, num_shards: int, is_complete: bool) -> set[int]:
    """Shards without a commit. On resume, what stands in the output is checked first."""
    if not is_complete:
        damaged = revoke_damaged(store, config.check_resume == "checksums")
        if damaged:
            fields = {"shards": len(damaged), "first": damaged[0]}
            logger.warning("damaged_shards_are_made_anew", extra={"fields": fields})
    return set(range(num_shards)) - committed_shards(store)


def _rows_of(shards: Iterable[int], shard_rows: int, num_rows: int) -> int:
    return sum(min(shard_rows, num_rows - shard * shard_rows) for shard in shards)


def _announce(store: Store, plan: dict[str, int], num_missing: int) -> None:
    fields = {"rows": plan["rows"], "shards": plan["shards"], "committed": plan["shards"] - num_missing}
    logger.info("plan", extra={"fields": fields})
    for other in read_heartbeats(store):
        if other.is_live(time.time()):
            who = {"run": other.run, "host": other.host, "pid": other.pid}
            logger.warning("another_run_writes_here_too", extra={"fields": who})


def _run_on_ray(
    config: RunConfig, source: Source, schema: Any, store: Store, asked: dict[str, Any], missing: set[int],
    heartbeat: Heartbeat,
) -> None:  # fmt: skip
    from shared.compute.ray_session import ray_job_of, ray_session

    with ray_session(config.address) as (ray, own_ray):
        from augment_service.job.actor_pool import ActorPool
        from augment_service.job.driver import Driver
        from augment_service.job.ray_metrics import RayMetrics
        from augment_service.job.scheduler import Scheduler

        job = job_name(config.output)
        heartbeat.ray_job = ray_job_of(ray)

        def check_models(models: dict[str, Any]) -> None:
            write_or_check(store, asked | {"models": models})

        pool = ActorPool(ray=ray, config=config, run=heartbeat.run, job=job, own_ray=own_ray, check_models=check_models)
        scheduler = Scheduler(shard_work(source, config, missing))
        metrics = RayMetrics(job, "driver")
        driver = Driver(
            ray=ray,
            schema=schema,
            store=store,
            scheduler=scheduler,
            pool=pool,
            heartbeat=heartbeat,
            metrics=metrics,
        )
        try:
            driver.run()
        except KeyboardInterrupt:
            _say_goodbye(heartbeat, store, "stopped", "interrupted by a person or a signal")
            raise
        except ExpectedError as error:
            _say_goodbye(heartbeat, store, "failed", str(error))
            raise


def _say_goodbye(heartbeat: Heartbeat, store: Store, state: str, message: str) -> None:
    heartbeat.state, heartbeat.message = state, message
    heartbeat.write(store)


def summarise(commits: Iterable[Commit]) -> dict[str, Any]:
    """Totals of the commits."""
    totals: dict[str, float] = {}
    for commit in commits:
        counts = {"shards": 1, "rows": commit.sources, "quarantined": commit.quarantined, "bytes": commit.num_bytes}
        for name, value in (counts | commit.statistics).items():
            totals[name] = totals.get(name, 0) + value
    replaced = totals.get("replaced_by_mlm", 0) + totals.get("replaced_by_glove", 0)
    return {
        "shards": int(totals.get("shards", 0)),
        "rows": int(totals.get("rows", 0)),
        "quarantined": int(totals.get("quarantined", 0)),
        "samples": int(totals.get("samples", 0)),
        "share_replaced": round(replaced / max(totals.get("replaceable_words", 0), 1), 4),
        "share_by_glove": round(totals.get("replaced_by_glove", 0) / max(replaced, 1), 4),
        "bytes": int(totals.get("bytes", 0)),
    }


def _summary_text(summary: dict[str, Any], num_done: int, config: RunConfig) -> str:
    rate = min(num_done * config.shard_rows, summary["rows"]) / max(summary["seconds"], 0.1)
    how_long = f"{format_seconds(summary['seconds'])} ({rate:,.1f} rows/s)" if num_done else "all of them there before"
    lines = [
        f"{summary['rows']:,} rows -> {summary['samples']:,} samples in {summary['shards']} shards, {how_long}: "
        f"{summary['output']}/shards"
    ]
    if config.emit == "samples":
        lines.append(
            f"{summary['share_replaced']:.0%} of the replaceable words replaced, "
            f"{1 - summary['share_by_glove']:.0%} of them by the masked LM and {summary['share_by_glove']:.0%} by GloVe"
        )
    if summary["quarantined"]:
        lines.append(f"{summary['quarantined']} rows left out, each with its reason: {summary['output']}/quarantine")
    return "\n".join(lines)
