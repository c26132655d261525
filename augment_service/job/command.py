"""The job behind `augment_service run`: plan the shards, check what the output already has, compute the rest, finish.

A shard depends on its rows alone, and the actor that computes it also commits it. The driver holds no samples, so it
may be killed at any moment: all commits are kept, and the same command resumes with the missing shards.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from augment_service.config import RunConfig
from augment_service.engine.presence import check_models_exist
from augment_service.job.heartbeat import Heartbeat, new_run_name, read_heartbeats, remove_dead
from augment_service.job.quarantine_bound import QuarantineBound
from augment_service.job.shard_work import shard_schema, shard_work
from shared.cli.command_line import CommandResult
from shared.cli.logs import bind_log_fields
from shared.cli.progress import counted, format_seconds
from shared.errors import ExpectedError, ManifestError, UsageError
from shared.inputs.options import from_config
from shared.inputs.sources import Source, open_source
from shared.manifest import (
    MANIFEST,
    JobConfig,
    Manifest,
    ShardPlan,
    batch_tokens_of,
    read_manifest,
    write_or_check,
)
from shared.output_names import FOLDERS, is_own, writer_of_partial
from shared.shard_checks import Complete, check_complete, find_damaged, remove_orphans
from shared.shards import SUCCESS, committed_shards
from shared.storage.store import Store, open_store
from shared.success import success_bytes, write_success
from shared.totals import Totals

logger = logging.getLogger(__name__)

NAMESPACE = "augment"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The job as planned by this run. `manifest.models` is empty: no models are loaded yet."""

    name: str
    run: str
    config: RunConfig
    store: Store
    source: Source
    schema: pa.Schema
    manifest: Manifest


def run_command(config: RunConfig) -> CommandResult:
    """`augment_service run`: augment the input into OUTPUT, or finish an interrupted run. Raises ExpectedError."""
    began = time.monotonic()
    job = _plan(config.with_absolute_paths())
    # Before the shards are read: another job may have many. Models are compared by content, once they are loaded.
    _check_same_job(job, models_by_content=True)
    missing = _missing_shards(job)
    if missing:
        _log_plan(job, missing)
        _compute(job, missing)
    else:
        # No model gets loaded, so their paths are compared literally.
        _check_same_job(job, models_by_content=False)
    bound = QuarantineBound(job.store, config.max_quarantine)
    done = check_complete(job.store, rows=job.source.num_rows, shards=job.manifest.plan.shards, also=bound.add)
    bound.check()
    if missing or not _is_marked(job.store, done):
        _finish(job, done)
    seconds = round(time.monotonic() - began, 1)
    summary = asdict(done.totals) | {"output": job.store.uri, "seconds": seconds}
    if hint := _why_so_few(job, done.totals):
        summary["hint"] = hint
    return CommandResult(summary, _summary_text(job, done.totals, len(missing), seconds, hint))


def job_name(output: str) -> str:
    """Short name of a job for logs and metrics: the last part of its output."""
    return output.rstrip("/").rpartition("/")[2] or "job"


def _plan(config: RunConfig) -> Job:
    """Survey the input and split it into shards by position. Raises ExpectedError."""
    options = from_config(config)
    config = config.with_n_a_of(options.task)
    run, name = new_run_name(), job_name(config.output)
    bind_log_fields(job=name)
    store = open_store(config.output, run)
    if store.exists(MANIFEST) and not config.resume:
        raise ManifestError(
            f"{store.uri} already contains a run; omit --no-resume to continue it, or use another --output"
        )
    _check_empty(store)
    source = open_source(options)
    if source.labels is not None:
        config.quotas.check_known(source.labels, "--input")
    schema = shard_schema(source, config.emit)
    manifest = Manifest(
        config=JobConfig(**config.identity() | {"input": [file.path for file in source.files]}),
        inputs=source.files,
        models={},
        plan=ShardPlan.cut(source.num_rows, config.shard_rows),
        schema=tuple(f"{one.name}: {one.type}" for one in schema),
    )
    return Job(name=name, run=run, config=config, store=store, source=source, schema=schema, manifest=manifest)


def _check_empty(store: Store) -> None:
    """Raises UsageError if an output without a manifest holds files other than those of a run that was killed early."""
    if store.exists(MANIFEST):
        return
    foreign = [name for name in store.entries() if not name.startswith(".") and name.rstrip("/") not in FOLDERS]
    foreign = [name for name in foreign if not is_own(name) and writer_of_partial(name) is None]
    foreign += [name for folder in FOLDERS for name in store.list(folder) if not is_own(name)]
    if foreign:
        raise UsageError(
            f"--output {store.uri} is not empty, and is not the output of a run (it has {foreign[0]}, but no "
            f"{MANIFEST}); use a new or an empty folder"
        )


def _check_same_job(job: Job, *, models_by_content: bool) -> None:
    """Check an existing manifest before any model is loaded. Raises ManifestError if it belongs to another job."""
    if job.store.exists(MANIFEST):
        manifest = replace(job.manifest, models=read_manifest(job.store).models)
        write_or_check(job.store, manifest, models_by_content=models_by_content)


def _missing_shards(job: Job) -> set[int]:
    """Shards to compute: uncommitted and damaged ones. Changes nothing in the output."""
    damaged = find_damaged(job.store, read_all=job.config.check_resume == "checksums")
    if damaged:
        fields = {"shards": len(damaged), "first": damaged[0]}
        logger.warning("damaged_shards_are_recomputed", extra={"fields": fields})
    planned = set(range(job.manifest.plan.shards))
    return (planned - committed_shards(job.store)) | (planned & set(damaged))


def _log_plan(job: Job, missing: set[int]) -> None:
    plan = job.manifest.plan
    fields = {"rows": plan.rows, "shards": plan.shards, "committed": plan.shards - len(missing)}
    logger.info("plan", extra={"fields": fields})
    for other in read_heartbeats(job.store):
        if other.is_live(time.time()):
            who = {"run": other.run, "host": other.host, "pid": other.pid}
            logger.warning("another_run_is_writing_here", extra={"fields": who})


def _compute(job: Job, missing: set[int]) -> None:
    """Compute and commit the missing shards on Ray. Raises ExpectedError, after a last heartbeat with the reason."""
    from shared.compute.ray_session import is_private, ray_job_of, ray_session

    if is_private(job.config.address):
        # Nodes of a remote Ray cluster may have folders that this machine lacks.
        check_models_exist(job.config.mlm, job.config.glove)
    plan = job.manifest.plan
    heartbeat = Heartbeat(job.run, rows=plan.rows, shards=plan.shards, shards_left=len(missing))
    heartbeat.rows_done = plan.rows - sum(map(plan.rows_of, missing))
    with ray_session(job.config.address, NAMESPACE) as (ray, is_own_ray):
        heartbeat.ray_job = ray_job_of(ray)
        # Actors look for it to check that their node sees this output. Written only once Ray has been joined.
        heartbeat.write(job.store)
        driver = _driver(job, missing, heartbeat, ray, is_own_ray)
        try:
            driver.run()
        except KeyboardInterrupt:
            _write_last_heartbeat(job, heartbeat, "stopped", "interrupted by Ctrl-C or a signal")
            raise
        except ExpectedError as error:
            _write_last_heartbeat(job, heartbeat, "failed", str(error))
            raise


def _driver(job: Job, missing: set[int], heartbeat: Heartbeat, ray: Any, is_own_ray: bool) -> Any:
    from augment_service.job.actor_pool import ActorPool
    from augment_service.job.driver import Driver
    from augment_service.job.ray_metrics import RayMetrics
    from augment_service.job.scheduler import Scheduler

    def check_models(models: dict[str, Any]) -> int:
        write_or_check(job.store, replace(job.manifest, models=models), models_by_content=True)
        return batch_tokens_of(read_manifest(job.store))

    pool = ActorPool(
        ray=ray,
        config=job.config,
        run=job.run,
        job=job.name,
        own_ray=is_own_ray,
        check_models=check_models,
        batch_tokens=batch_tokens_of(read_manifest(job.store)) if job.store.exists(MANIFEST) else None,
    )
    return Driver(
        ray=ray,
        config=job.config,
        schema=job.schema,
        store=job.store,
        scheduler=Scheduler(shard_work(job.source, job.config.shard_rows, missing)),
        pool=pool,
        heartbeat=heartbeat,
        metrics=RayMetrics(job.name, "driver"),
    )


def _write_last_heartbeat(job: Job, heartbeat: Heartbeat, state: str, message: str) -> None:
    heartbeat.state, heartbeat.message = state, message
    heartbeat.write(job.store)


def _is_marked(store: Store, done: Complete) -> bool:
    """Whether the output is marked complete with its current commits."""
    return store.exists(SUCCESS) and store.read(SUCCESS) == success_bytes(store, done.totals, done.commits_sha256)


def _finish(job: Job, done: Complete) -> None:
    """Remove leftovers of killed runs and mark the output complete."""
    _check_same_job(job, models_by_content=True)
    live = remove_dead(job.store, job.run, time.time())
    remove_orphans(job.store, live, known=done.files)
    write_success(job.store, done.totals, done.commits_sha256)


def _summary_text(job: Job, totals: Totals, num_computed: int, seconds: float, hint: str) -> str:
    if num_computed:
        rate = min(num_computed * job.config.shard_rows, totals.rows) / max(seconds, 0.1)
        how_long = f"{format_seconds(seconds)} ({rate:,.1f} rows/s)"
    else:
        how_long = "already complete"
    lines = [
        f"{totals.rows:,} rows -> {totals.samples:,} samples in {counted(totals.shards, 'shard')}, {how_long}: "
        f"{job.store.uri}/shards"
    ]
    if job.config.emit == "samples":
        lines.append(
            f"{totals.share_replaced:.0%} of the replaceable words were replaced, {1 - totals.share_by_glove:.0%} of "
            f"them by the masked LM and {totals.share_by_glove:.0%} by GloVe"
        )
    if hint:
        lines.append(hint)
    if totals.quarantined:
        lines.append(f"{totals.quarantined} rows were quarantined; the reasons are in {job.store.uri}/quarantine")
    return "\n".join(lines)


def _why_so_few(job: Job, totals: Totals) -> str:
    """A hint if most rows have no samples because no words in them may be replaced; else empty."""
    config = job.config
    # A row with any replaceable word has a sample, so fewer samples than half of the rows prove it.
    are_few = (
        not config.quotas.numbers
        and config.n_a_unlabelled is None
        and 10 * totals.samples < config.n_a * totals.rows
        and 2 * totals.samples < totals.rows
    )
    if config.emit != "samples" or config.p_t == 0 or not are_few:
        return ""
    which = "most rows have no word" if totals.samples else "no row has a word"
    if config.words == "reference":
        return (
            f"{which} that may be replaced under --words reference, which accepts words of a-z only; for text in "
            "other scripts, use --words all-letters and a masked LM for its language"
        )
    return (
        f"{which} that may be replaced under --words {config.words}: the words are neither tokens of the masked LM nor "
        "in the vectors. Use a masked LM and vectors for the language of the text"
    )
