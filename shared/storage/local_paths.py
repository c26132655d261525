"""Local paths as the user wrote them -> absolute ones, which mean the same in every process of a run."""

from __future__ import annotations

import os


def absolute(path: str) -> str:
    """The path without `~`, `..` and file://, from the working directory; URIs and `-` stay as they are."""
    path = path.removeprefix("file://")
    if "://" in path or path in ("", "-"):
        return path
    return os.path.abspath(os.path.expanduser(path))


def absolute_model(name: str) -> str:
    """As `absolute` for what exists on this machine; anything else (`embedded`, a hub id) stays as it is."""
    path = os.path.expanduser(name)
    return os.path.abspath(path) if os.path.exists(path) and name != "embedded" else path
