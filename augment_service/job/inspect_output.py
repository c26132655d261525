"""The `status` and `verify` commands: what stands in an output, and whether it is whole. Work from any machine."""

from __future__ import annotations

import time
from dataclasses import asdict

from augment_service.config import OutputConfig
from augment_service.job.command import summarise
from augment_service.job.heartbeat import Heartbeat, read_heartbeats
from shared.cli.command_line import CommandResult
from shared.cli.progress import format_seconds
from shared.manifest import read_manifest
from shared.shards import SUCCESS, iter_commits, verify_output
from shared.storage.store import open_store


def status_command(config: OutputConfig) -> CommandResult:
    """How far a job is: its commits, and what its runs last said of themselves."""
    store = open_store(config.out)
    manifest = read_manifest(store)
    summary = summarise(iter_commits(store))
    total = int(manifest["plan"]["shards"])
    is_complete = store.exists(SUCCESS)
    runs = read_heartbeats(store)
    now = time.time()
    live = [one for one in runs if one.is_live(now)]
    text = [
        f"{store.uri}: {summary['shards']} of {total} shards committed, {summary['rows']:,} rows, "
        f"{summary['samples']:,} samples, {summary['quarantined']} quarantined; "
        + ("complete" if is_complete else "running" if live else "not complete: run the same command again to go on")
    ]
    text += [_run_text(one, now) for one in (live or runs[-1:])]
    entries = [asdict(one) | {"live": one in live, "silent_seconds": round(now - one.updated, 1)} for one in runs]
    return CommandResult(
        {"output": store.uri, "complete": is_complete, "planned_shards": total} | summary | {"runs": entries},
        "\n".join(text),
    )


def _run_text(run: Heartbeat, now: float) -> str:
    """One run in one line."""
    where = f"  run {run.run} on {run.host} pid {run.pid}" + (f" (Ray job {run.ray_job})" if run.ray_job else "")
    ago = format_seconds(max(now - run.updated, 0.0))
    if not run.is_live(now):
        state = run.state if run.state != "running" else "silent, so it was killed or lost its store"
        return f"{where}: {state}, {ago} ago" + (f": {run.message}" if run.message else "")
    left = "?" if run.eta_seconds is None else format_seconds(run.eta_seconds)
    retries = ", ".join(f"{count} {reason}" for reason, count in sorted(run.retries.items())) or "none"
    last = ", ".join(f"{int(shard)} ({format_seconds(max(now - at, 0.0))} ago)" for shard, at in run.last_commits[-3:])
    return (
        f"{where}, {ago} ago: {run.rows_per_second:,.1f} rows/s, {left} left, {run.actors_ready} actors on "
        f"{run.nodes} nodes ({run.actors_starting} starting), {run.shards_in_flight} shards in flight; given again: "
        f"{retries}; last commits: {last or 'none yet'}"
    )


def verify_command(config: OutputConfig) -> CommandResult:
    """Re-hash every shard, check counts and schema; exit code 1 on any fault."""
    store = open_store(config.out)
    faults = verify_output(store)
    summary = {"output": store.uri, "ok": not faults, "faults": faults} | summarise(iter_commits(store))
    text = (
        "\n".join(faults) if faults else f"{store.uri}: {summary['shards']} shards, {summary['samples']:,} samples: ok"
    )
    return CommandResult(summary, text, 1 if faults else 0)
