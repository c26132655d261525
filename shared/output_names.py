"""Names of the files that a job writes into its output. Only files with such a name are ever deleted."""

from __future__ import annotations

import re

PARTIAL = ".partial-"
"""Separates the name of a file from its writer while it is being written."""

_SHARD = r"shards/\d{5,}-[0-9a-f]{16}\.arrow"
_COMMIT = r"commits/\d{5,}\.json"
_QUARANTINE = r"quarantine/\d{5,}\.jsonl"
_RUN = r"\d{8}T\d{6}_[0-9a-f]{4,}"
_HEARTBEAT = rf"runs/{_RUN}\.json"
_NAMES = {
    "shard": re.compile(_SHARD, re.ASCII),
    "commit": re.compile(_COMMIT, re.ASCII),
    "quarantine": re.compile(_QUARANTINE, re.ASCII),
    "heartbeat": re.compile(_HEARTBEAT, re.ASCII),
    "any": re.compile(rf"{_SHARD}|{_COMMIT}|{_QUARANTINE}|{_HEARTBEAT}|manifest\.json|_SUCCESS", re.ASCII),
}
_PARTIAL = re.compile(rf"(?P<name>.+){re.escape(PARTIAL)}(?P<writer>none|{_RUN})-[0-9a-f]{{32}}", re.ASCII)
FOLDERS = ("shards", "commits", "quarantine", "runs")


def is_own(name: str, kind: str = "any") -> bool:
    """Whether a job writes a file with this name, relative to its output.

    kind: shard, commit, quarantine, heartbeat, or any of them.
    """
    return _NAMES[kind].fullmatch(name) is not None


def partial_name(name: str, writer: str, unique: str) -> str:
    """Temporary name of a file while `writer` writes it. unique: 32 hex digits."""
    return f"{name}{PARTIAL}{writer}-{unique}"


def writer_of_partial(name: str) -> str | None:
    """The run that was writing this half-written file, "none" if unknown; None if the file is not one of ours."""
    found = _PARTIAL.fullmatch(name)
    return found["writer"] if found and is_own(found["name"]) else None
