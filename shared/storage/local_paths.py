"""Local paths as the user wrote them -> absolute ones, which mean the same in every process of a run."""

from __future__ import annotations

import os


def absolute(path: str) -> str:
    """The absolute path without `~`, `..` and file://; URIs and `-` are unchanged."""
    path = path.removeprefix("file://")
    if "://" in path or path in ("", "-"):
        return path
    return os.path.abspath(os.path.expanduser(path))


def absolute_model(name: str) -> str:
    """As `absolute` for paths that exist on this machine; anything else (`embedded`, a hub id) is unchanged."""
    path = os.path.expanduser(name)
    return os.path.abspath(path) if os.path.exists(path) and name != "embedded" else path
