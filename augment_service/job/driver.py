"""The main loop of a run: collects results from actors, assigns work, reports progress.

It holds no samples: killing it at any moment loses only uncommitted work.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from augment_service.config import RunConfig
from augment_service.job.actor_pool import ActorPool
from augment_service.job.failures import (
    BrokenProcessError,
    BrokenVectorsError,
    cause_of,
    expected_error,
    is_rays_own,
    short_reason,
)
from augment_service.job.heartbeat import PERIOD_SECONDS, Heartbeat
from augment_service.job.quarantine_bound import QuarantineBound
from augment_service.job.ray_metrics import RayMetrics
from augment_service.job.scheduler import Assignment, Scheduler
from augment_service.job.shard_work import ShardWork
from augment_service.job.stalls import StallWatch
from shared.cli.progress import Progress, format_seconds
from shared.errors import ClusterError, OutputError, OverloadError, StoreError
from shared.shards import Commit
from shared.storage.store import Store

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.5
NO_ROOM_LOG_SECONDS = 60.0
MAX_FAILURES_OF_A_SHARD = 3
LAST_COMMITS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """An assignment in progress: its actor, and the vector-actor group it was started with."""

    actor: str
    assignment: Assignment[ShardWork]
    vectors: int


class Driver:
    """One run on a Ray cluster until every missing shard is committed."""

    def __init__(
        self,
        *,
        ray: Any,
        config: RunConfig,
        schema: pa.Schema,
        store: Store,
        scheduler: Scheduler[ShardWork],
        pool: ActorPool,
        heartbeat: Heartbeat,
        metrics: RayMetrics,
    ) -> None:
        self._ray, self._config, self._schema, self._store = ray, config, schema, store
        self._scheduler, self._pool, self._heartbeat, self._metrics = scheduler, pool, heartbeat, metrics
        self._working: dict[Any, _Given] = {}
        self._failures: dict[int, int] = {}
        self._counted_retries: dict[str, int] = {}
        self._recent: deque[tuple[float, int]] = deque([(time.monotonic(), heartbeat.rows_done)], maxlen=60)
        self._quarantine = QuarantineBound(store, config.max_quarantine)
        self._stalls = StallWatch(scheduler, config.stall_seconds)
        self._next_beat, self._last_answer, self._next_no_room = 0.0, time.monotonic(), NO_ROOM_LOG_SECONDS

    def run(self) -> None:
        """Work until nothing is left. Raises ExpectedError."""
        beat = self._heartbeat
        progress = Progress("augment", beat.rows, "rows", start=beat.rows_done)
        while beat.shards_left:
            if time.monotonic() >= self._next_beat:
                self._pool.grow()
                self._beat()
            for reference in self._answers():
                if reference in self._working:
                    self._settle(reference)
                else:
                    for name in self._pool.settle(reference):
                        self._scheduler.add_actor(name)
            for name, assignment in self._scheduler.assign_all():
                self._give(name, assignment)
            if beat.shards_left and self._scheduler.is_dry:
                raise OutputError(
                    f"the input has no rows for {beat.shards_left} of the planned shards, and nothing is in flight; "
                    "if it has changed since the run began, use another --output"
                )
            if stalled := self._stalls.look():
                self._stalled(*stalled)
            self._pool.end_stalled()
            progress.update(beat.rows_done, shards_left=beat.shards_left, actors=self._pool.num_ready)
        progress.close()
        self._finish()

    def _answers(self) -> list[Any]:
        """References of all finished calls; waits briefly for the first."""
        waiting = [*self._pool.pending, *self._working]
        if not waiting:
            # Every actor is excluded, or waits for vectors that are being replaced.
            time.sleep(TICK_SECONDS)
        ready, others = self._ray.wait(waiting, num_returns=1, timeout=TICK_SECONDS) if waiting else ([], [])
        if ready and others:
            ready += self._ray.wait(others, num_returns=len(others), timeout=0)[0]
        if ready or self._pool.num_ready:
            self._last_answer, self._next_no_room = time.monotonic(), NO_ROOM_LOG_SECONDS
        else:
            self._no_actor(time.monotonic() - self._last_answer)
        return list(ready)

    def _no_actor(self, seconds: float) -> None:
        """No actor has been ready or answered for `seconds`. Raises ClusterError after --no-room-seconds."""
        if seconds > self._config.no_room_seconds:
            raise ClusterError(
                f"no actor could start for {format_seconds(seconds)} (--no-room-seconds): {self._pool.waits_for}"
            )
        if seconds > self._next_no_room:
            self._next_no_room += NO_ROOM_LOG_SECONDS
            fields = {"seconds": round(seconds), "of": self._config.no_room_seconds, "missing": self._pool.waits_for}
            logger.warning("no_actor_yet", extra={"fields": fields})

    def _settle(self, reference: Any) -> None:
        """Handle the result of a work or probe call."""
        given = self._working[reference]
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            # Checked first, because a call that failed when *another* actor died is a RayActorError as well.
            del self._working[reference]
            self._failed(given, error)
        except self._ray.exceptions.RayError as error:
            # Whatever the cause (out of memory, a dead node, a lost object), the actor gave no result.
            self._actor_lost(given.actor, str(error))
        else:
            del self._working[reference]
            self._done(given, answer)

    def _done(self, given: _Given, commit: Commit | None) -> None:
        """Work has finished; `commit` is None for a part that was only probed."""
        self._pool.progressed()
        self._stalls.progressed()
        if not self._scheduler.done(given.actor, given.assignment):
            return
        work, beat = given.assignment.work, self._heartbeat
        beat.shards_left -= 1
        beat.rows_done += work.num_rows + len(work.quarantined)
        beat.last_commits = [*beat.last_commits, [work.shard, round(time.time(), 1)]][-LAST_COMMITS:]
        self._failures.pop(work.shard, None)
        if commit is not None:
            self._quarantine.add(commit)
            self._quarantine.check()

    def _give(self, name: str, assignment: Assignment[ShardWork]) -> None:
        work, part, handle = assignment.work, assignment.part, self._pool.handle(name)
        common = (self._schema, self._pool.batch_tokens)
        if part is None:
            reference = handle.work.remote(work.shard, work.rows, work.quarantined, *common)
        else:
            fields = {"shard": work.shard, "first_row": part[0], "last_row": part[-1], "on": name}
            logger.info("poison_hunt", extra={"fields": fields})
            reference = handle.probe.remote(work.rows[part.start : part.stop], *common)
        self._working[reference] = _Given(actor=name, assignment=assignment, vectors=self._pool.vectors_of(name))

    def _actor_lost(self, name: str, reason: str, kind: str = "actor_lost") -> None:
        self._working = {reference: given for reference, given in self._working.items() if given.actor != name}
        self._scheduler.lost(name, short_reason(reason), kind)
        self._pool.lost(name, reason)

    def _stalled(self, name: str, seconds: float) -> None:
        """An actor hangs: treat it as dead."""
        logger.warning("actor_stalled", extra={"fields": {"stalled": name, "seconds": round(seconds)}})
        self._actor_lost(
            name, f"it was still working on one shard after {format_seconds(seconds)} (--stall-seconds)", "stalled"
        )

    def _failed(self, given: _Given, error: Any) -> None:
        """A call raised: lost vectors and transient errors are retried, anything else ends the run."""
        cause, name, assignment = cause_of(error), given.actor, given.assignment
        shard = assignment.work.shard
        if isinstance(cause, BrokenProcessError):
            self._actor_lost(name, str(cause), "broken_process")
            return
        if isinstance(cause, BrokenVectorsError) or is_rays_own(self._ray, error):
            self._scheduler.put_back(name, assignment, "vectors_lost")
            self._pool.vectors_lost(name, given.vectors, str(cause))
            return
        is_temporary = isinstance(cause, OverloadError) or (isinstance(cause, StoreError) and cause.is_transient)
        if not is_temporary:
            raise expected_error(cause) from error
        self._failures[shard] = self._failures.get(shard, 0) + 1
        if self._failures[shard] >= MAX_FAILURES_OF_A_SHARD:
            raise expected_error(cause) from error
        fields = {"shard": shard, "by": name, "reason": str(cause)}
        logger.warning("shard_again", extra={"fields": fields})
        self._scheduler.put_back(name, assignment, "store" if isinstance(cause, StoreError) else "out_of_memory")

    def _beat(self) -> None:
        """Update heartbeat and metrics; called every few seconds."""
        now, beat, pool = time.monotonic(), self._heartbeat, self._pool
        self._next_beat = now + PERIOD_SECONDS
        self._recent.append((now, beat.rows_done))
        began, rows_then = self._recent[0]
        beat.rows_per_second = round((beat.rows_done - rows_then) / (now - began), 2) if now > began else 0.0
        left = beat.rows - beat.rows_done
        beat.eta_seconds = round(left / beat.rows_per_second, 1) if beat.rows_per_second else None
        beat.actors_ready, beat.actors_starting, beat.nodes = pool.num_ready, pool.num_starting, pool.num_nodes
        beat.stalled_seconds = round(self._stalls.stalled_seconds(), 1)
        beat.shards_in_flight, beat.retries = self._scheduler.in_flight, dict(self._scheduler.retries)
        beat.write(self._store)
        self._metrics.set("augment_shards_left", beat.shards_left)
        self._metrics.set("augment_shards_in_flight", beat.shards_in_flight)
        self._metrics.set("augment_actors", beat.actors_ready, state="ready")
        self._metrics.set("augment_actors", beat.actors_starting, state="starting")
        for reason, count in beat.retries.items():
            self._metrics.add("augment_retries_total", count - self._counted_retries.get(reason, 0), reason=reason)
        self._counted_retries = beat.retries

    def _finish(self) -> None:
        """Let running copies of shards finish for a moment, so that they leave nothing half-written."""
        if self._working:
            self._ray.wait(list(self._working), num_returns=len(self._working), timeout=1.0)
        self._beat()
        self._pool.dismiss()
