"""The `status` and `verify` commands: an output's progress and integrity. They run on any machine."""

from __future__ import annotations

import time
from dataclasses import asdict

from augment_service.config import OutputConfig
from augment_service.job.heartbeat import Heartbeat, read_heartbeats
from shared.cli.command_line import CommandResult
from shared.cli.progress import counted, format_seconds
from shared.manifest import read_manifest
from shared.shards import SUCCESS, iter_commits
from shared.storage.store import open_store
from shared.totals import total
from shared.verify import verify_output


def status_command(config: OutputConfig) -> CommandResult:
    """Progress of a job: its commits and its runs' last heartbeats. Raises ManifestError, ShardError, StoreError."""
    store = open_store(config.out)
    planned = read_manifest(store).plan.shards
    totals = total(iter_commits(store))
    is_complete = store.exists(SUCCESS)
    runs = read_heartbeats(store)
    now = time.time()
    live = [one for one in runs if one.is_live(now)]
    state = "complete" if is_complete else "running" if live else "incomplete: run the same command again to resume"
    text = [
        f"{store.uri}: {totals.shards} of {planned} shards committed, {totals.rows:,} rows, "
        f"{totals.samples:,} samples, {totals.quarantined} quarantined; {state}"
    ]
    text += [_run_text(one, now) for one in (live or runs[-1:])]
    entries = [asdict(one) | {"live": one in live, "silent_seconds": round(now - one.updated, 1)} for one in runs]
    output = {"output": store.uri, "complete": is_complete, "planned_shards": planned}
    return CommandResult(output | asdict(totals) | {"runs": entries}, "\n".join(text))


def _run_text(run: Heartbeat, now: float) -> str:
    """One run in one line."""
    where = f"  run {run.run} on {run.host} pid {run.pid}" + (f" (Ray job {run.ray_job})" if run.ray_job else "")
    ago = format_seconds(max(now - run.updated, 0.0))
    if not run.is_live(now):
        killed = f"no heartbeat for {ago}, so it was killed or lost access to its store"
        state = killed if run.state == "running" else f"{run.state}, {ago} ago"
        return f"{where}: {state}" + (f": {run.message}" if run.message else "")
    left = "?" if run.eta_seconds is None else format_seconds(run.eta_seconds)
    retries = ", ".join(f"{count} {reason}" for reason, count in sorted(run.retries.items())) or "none"
    last = ", ".join(f"{int(shard)} ({format_seconds(max(now - at, 0.0))} ago)" for shard, at in run.last_commits[-3:])
    stalled = f"stalled: no progress for {format_seconds(run.stalled_seconds)}; " if run.stalled_seconds else ""
    return (
        f"{where}, {ago} ago: {stalled}{run.rows_per_second:,.1f} rows/s, {left} left, "
        f"{counted(run.actors_ready, 'actor')} on {counted(run.nodes, 'node')} ({run.actors_starting} starting), "
        f"{counted(run.shards_in_flight, 'shard')} in flight; retries: {retries}; last commits: {last or 'none yet'}"
    )


def verify_command(config: OutputConfig) -> CommandResult:
    """Rehash every shard, check counts and schema; exit code 1 if there is any fault."""
    store = open_store(config.out)
    found = verify_output(store)
    faults, totals = found.faults, found.totals
    summary = {"output": store.uri, "ok": not faults, "faults": faults} | asdict(totals)
    good = f"{store.uri}: {counted(totals.shards, 'shard')}, {totals.samples:,} samples: ok"
    text = "\n".join(faults) if faults else good
    return CommandResult(summary, text, 1 if faults else 0)
