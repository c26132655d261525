"""The job's driver: plan shards by position, give them to actors, follow commits, finish; or go on where a run stopped.

A shard is decided by its rows alone, and committed by the actor that made it. The driver holds no sample, so it may
die at any moment: what is committed stays, and the same command goes on with the rest.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from augment_service.config import RunConfig
from augment_service.scheduler import Scheduler
from shared.command_line import CommandResult
from shared.errors import ClusterError, ExpectedError, ManifestError
from shared.glue import get_task
from shared.manifest import MANIFEST, read_manifest, write_or_check
from shared.progress import Progress, format_seconds
from shared.rows import QuarantinedRow, SourceRow
from shared.schema import candidates_schema, samples_schema
from shared.shards import SUCCESS, Commit, list_commits, remove_orphans, write_success
from shared.sources import Source, open_source, read_rows
from shared.store import LocalStore, open_store

logger = logging.getLogger(__name__)

READY_TIMEOUT_SECONDS = 600.0


@dataclass(eq=False, slots=True)
class ShardWork:
    """Rows of one shard."""

    shard: int
    rows: list[SourceRow] = field(default_factory=list)
    quarantined: list[QuarantinedRow] = field(default_factory=list)


def run_command(config: RunConfig) -> CommandResult:
    """`augment_service run`: augment the input into OUTPUT; resumes. Raises ExpectedError."""
    began = time.monotonic()
    if config.task and "n_a" not in config.model_fields_set:
        config = config.model_copy(update={"n_a": get_task(config.task).n_a})
    store = open_store(config.output)
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
        "config": config.what() | {"input": [name for name, _ in source.files]},
        "inputs": [{"file": name, "sha256": digest} for name, digest in source.files],
        "plan": plan,
        "schema": [f"{one.name}: {one.type}" for one in schema],
    }
    if store.exists(MANIFEST):
        # Before any model loads: is this the job that the folder holds?
        write_or_check(store, asked | {"models": read_manifest(store).get("models")})
    committed = {commit.shard for commit in list_commits(store)}
    missing = set(range(plan["shards"])) - committed
    if missing:
        logger.info(
            "plan", extra={"fields": {"rows": plan["rows"], "shards": plan["shards"], "committed": len(committed)}}
        )
        _run_on_ray(config, source, schema, store, asked, missing)
    commits = list_commits(store)
    summary = summarise(commits) | {"output": store.uri, "seconds": round(time.monotonic() - began, 1)}
    if missing or not store.exists(SUCCESS):
        remove_orphans(store)
        write_success(store, {name: value for name, value in summary.items() if name not in ("seconds", "output")})
    return CommandResult(summary, _summary_text(summary, len(missing), config))


def summarise(commits: list[Commit]) -> dict[str, Any]:
    """Totals of the commits."""
    totals: dict[str, float] = {}
    for commit in commits:
        for name, value in commit.statistics.items():
            totals[name] = totals.get(name, 0) + value
    replaced = totals.get("replaced_by_mlm", 0) + totals.get("replaced_by_glove", 0)
    return {
        "shards": len(commits),
        "rows": sum(commit.sources for commit in commits),
        "quarantined": sum(commit.quarantined for commit in commits),
        "samples": int(totals.get("samples", 0)),
        "share_replaced": round(replaced / max(totals.get("replaceable_words", 0), 1), 4),
        "share_by_glove": round(totals.get("replaced_by_glove", 0) / max(replaced, 1), 4),
        "bytes": sum(commit.num_bytes for commit in commits),
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


def shard_work(source: Source, config: RunConfig, missing: set[int]) -> Iterator[ShardWork]:
    """Work of the missing shards, in order, read from the input as it is asked for."""
    work: ShardWork | None = None
    for position, item in enumerate(read_rows(source, config)):
        shard = position // config.shard_rows
        if work is None or work.shard != shard:
            if work is not None and work.shard in missing:
                yield work
            work = ShardWork(shard)
        if shard in missing:
            (work.rows if isinstance(item, SourceRow) else work.quarantined).append(item)  # type: ignore[arg-type]
    if work is not None and work.shard in missing:
        yield work


def _run_on_ray(
    config: RunConfig, source: Source, schema: Any, store: LocalStore, asked: dict[str, Any], missing: set[int]
) -> None:
    with _ray_session(config) as ray:
        driver = _Driver(ray, config, schema, store, asked, source, missing)
        driver.run()


class _Driver:
    """One run on a Ray cluster: actors, work in flight, progress."""

    def __init__(
        self, ray: Any, config: RunConfig, schema: Any, store: LocalStore, asked: dict[str, Any], source: Source,
        missing: set[int],
    ) -> None:  # fmt: skip
        self._ray, self._config, self._schema, self._store = ray, config, schema, store
        self._asked, self._num_rows, self._left = asked, source.num_rows, len(missing)
        self._scheduler = Scheduler(shard_work(source, config, missing))
        self._handles: dict[str, Any] = {}
        self._starting: dict[Any, tuple[str, Any]] = {}
        self._working: dict[Any, tuple[str, ShardWork]] = {}
        self._made = 0
        self._done_rows = source.num_rows - sum(
            min(config.shard_rows, source.num_rows - shard * config.shard_rows) for shard in missing
        )

    def run(self) -> None:
        """Work until every shard is committed. Raises ClusterError and what a worker raised."""
        from augment_service.actors import GloveWorker, MlmWorker

        config, ray = self._config, self._ray
        glove_class = ray.remote(num_cpus=0, max_restarts=0)(GloveWorker)
        self._glove = [glove_class.remote(config.glove, config.glove_limit) for _ in range(config.glove_actors)]
        self._mlm_class = ray.remote(**self._resources())(MlmWorker)
        for _ in range(self._num_actors()):
            self._start_actor()
        progress = Progress("augment", self._num_rows, "rows", start=self._done_rows)
        while self._left:
            ready, _ = ray.wait([*self._starting, *self._working], num_returns=1, timeout=READY_TIMEOUT_SECONDS)
            if not ready:
                raise ClusterError("no actor answered for 10 minutes: has the cluster room for one masked-LM actor?")
            for reference in ready:
                self._settle(reference)
            progress.update(self._done_rows, shards_left=self._left)
        progress.close()

    def _settle(self, reference: Any) -> None:
        name = (self._starting.get(reference) or self._working[reference])[0]
        try:
            result = self._ray.get(reference)
        except self._ray.exceptions.RayActorError as error:
            self._actor_died(name, str(error).splitlines()[0])
            return
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, BaseException) else error
            if isinstance(cause, ExpectedError):
                raise cause from error
            raise ClusterError(f"a worker failed: {type(cause).__name__}: {str(cause).splitlines()[-1]}") from error
        if reference in self._starting:
            _, handle = self._starting.pop(reference)
            self._check_models(result)
            self._handles[name] = handle
            self._scheduler.add_actor(name)
        else:
            _, work = self._working.pop(reference)
            self._scheduler.done(name, work)
            self._left -= 1
            self._done_rows += len(work.rows) + len(work.quarantined)
            logger.debug("shard_committed", extra={"fields": {"shard": work.shard, "rows": result.rows}})
        self._dispatch(name)

    def _dispatch(self, name: str) -> None:
        while (work := self._scheduler.next_for(name)) is not None:
            reference = self._handles[name].work.remote(work.shard, work.rows, work.quarantined, self._schema)
            self._working[reference] = (name, work)

    def _actor_died(self, name: str, reason: str) -> None:
        was_ready = name in self._handles
        self._handles.pop(name, None)
        self._starting = {ref: one for ref, one in self._starting.items() if one[0] != name}
        self._working = {ref: one for ref, one in self._working.items() if one[0] != name}
        count = self._scheduler.lost(name, reason) if was_ready else 0
        logger.warning("actor_lost", extra={"fields": {"actor": name, "shards_again": count, "reason": reason}})
        if self._made >= 8 * self._num_actors() + 8:
            raise ClusterError(f"{self._made} masked-LM actors were lost; the last: {reason}")
        self._start_actor()
        for other in self._scheduler.actors:
            self._dispatch(other)

    def _start_actor(self) -> None:
        name = f"mlm-{self._made}"
        self._made += 1
        handle = self._mlm_class.remote(self._config, self._glove[self._made % len(self._glove)])
        self._starting[handle.describe.remote()] = (name, handle)

    def _check_models(self, described: dict[str, Any]) -> None:
        models = {"mlm": described, "glove": self._ray.get(self._glove[0].describe.remote())}
        write_or_check(self._store, self._asked | {"models": models})

    def _num_actors(self) -> int:
        if self._config.mlm_actors:
            return self._config.mlm_actors
        resources = self._ray.cluster_resources()
        if self._uses_gpu():
            return max(int(resources.get("GPU", 0)), 1)
        return max(int(resources.get("CPU", 1)) // self._config.mlm_threads, 1)

    def _uses_gpu(self) -> bool:
        if self._config.device == "auto":
            return bool(self._ray.cluster_resources().get("GPU", 0))
        return self._config.device == "cuda"

    def _resources(self) -> dict[str, Any]:
        resources: dict[str, Any] = {"max_restarts": 0, "max_task_retries": 0}
        if self._uses_gpu():
            return resources | {"num_gpus": 1, "num_cpus": 1}
        # More actors than CPUs were asked for by --mlm-actors: they share, instead of waiting for ever.
        cpus = self._ray.cluster_resources().get("CPU", 1)
        return resources | {"num_cpus": min(self._config.mlm_threads, cpus / self._num_actors())}


@contextlib.contextmanager
def _ray_session(config: RunConfig) -> Iterator[Any]:
    """Ray, connected or started; SIGTERM ends the run like Ctrl-C, with everything committed kept."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    # Without RAY_ADDRESS, `auto` means a Ray of our own: joining whatever runs on a shared machine is no default.
    address = os.environ.get("RAY_ADDRESS", "local") if config.address == "auto" else config.address
    try:
        ray.init(
            address=address, include_dashboard=False if address == "local" else None, log_to_driver=True,
            logging_level=logging.WARNING, namespace="augment", configure_logging=True,
        )  # fmt: skip
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(f"Ray at {address}: {str(error).splitlines()[0]}") from error
    # Ray replaces handlers while it starts, so ours come after it.
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield ray
    finally:
        signal.signal(signal.SIGTERM, previous)
        ray.shutdown()


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt
