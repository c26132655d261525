"""The `status` and `verify` commands: what stands in an output folder, and whether it is whole."""

from __future__ import annotations

from augment_service.config import OutputConfig
from augment_service.job import summarise
from shared.command_line import CommandResult
from shared.manifest import read_manifest
from shared.shards import SUCCESS, list_commits, verify_output
from shared.store import open_store


def status_command(config: OutputConfig) -> CommandResult:
    """How far a job is, from its commits alone: works from any machine that sees the folder."""
    store = open_store(config.out)
    manifest = read_manifest(store)
    commits = list_commits(store)
    total = int(manifest["plan"]["shards"])
    is_complete = store.exists(SUCCESS)
    summary = {"output": store.uri, "complete": is_complete, "planned_shards": total} | summarise(commits)
    state = "complete" if is_complete else "not complete: run the same command again to go on"
    text = (
        f"{store.uri}: {len(commits)} of {total} shards committed, {summary['rows']:,} rows, "
        f"{summary['samples']:,} samples, {summary['quarantined']} quarantined; {state}"
    )
    return CommandResult(summary, text)


def verify_command(config: OutputConfig) -> CommandResult:
    """Re-hash every shard, check counts and schema; exit code 1 on any fault."""
    store = open_store(config.out)
    faults = verify_output(store)
    summary = {"output": store.uri, "ok": not faults, "faults": faults} | summarise(list_commits(store))
    text = (
        "\n".join(faults) if faults else f"{store.uri}: {summary['shards']} shards, {summary['samples']:,} samples: ok"
    )
    return CommandResult(summary, text, 1 if faults else 0)
