"""Ray for one run: join the cluster that is named, or start one of our own; one clear line when it refuses."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

from shared.errors import ClusterError


@contextlib.contextmanager
def ray_session(address: str) -> Iterator[tuple[Any, bool]]:
    """The ray module, connected, and whether it was started for us alone. Raises ClusterError.

    SIGTERM ends the run like Ctrl-C.
    address: `auto` (the cluster of RAY_ADDRESS, else a Ray of our own), `local`, or HOST:PORT.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_COLOR_PREFIX", "0")
    import ray

    # Without RAY_ADDRESS, `auto` means a Ray of our own: joining whatever runs on a shared machine is no default.
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "local")
    try:
        ray.init(
            address=address, include_dashboard=False if address == "local" else None, log_to_driver=True,
            logging_level=logging.WARNING, namespace="augment", configure_logging=True,
        )  # fmt: skip
    except Exception as error:
        raise _refused(address, error) from error
    # Ray replaces handlers while it starts, so ours come after it.
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield ray, address == "local"
    finally:
        signal.signal(signal.SIGTERM, previous)
        ray.shutdown()


def ray_job_of(ray: Any) -> str:
    """Submission id when `ray job submit` started this process, else Ray's own job id."""
    return str(os.environ.get("RAY_JOB_SUBMISSION_ID") or ray.get_runtime_context().get_job_id())


def _refused(address: str, error: Exception) -> ClusterError:
    """One line for a person. Ray itself says of a wrong token only that it could not connect."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    is_about_token = "token" in str(error).lower() and "auth" in str(error).lower()
    if address == "local" or (":" not in address and not is_about_token):
        return ClusterError(f"Ray at {address}: {text}")
    if is_about_token or _listens(address):
        return ClusterError(
            f"Ray at {address} did not let us in ({text}): does it ask for a token, or for another one? Set "
            "RAY_AUTH_MODE=token and the cluster's token in RAY_AUTH_TOKEN (or the file ~/.ray/auth_token); "
            "RAY_AUTH_MODE=disabled for a cluster that asks for none"
        )
    return ClusterError(f"nothing answers at {address}: is that the address of `ray start --head`, and does it run?")


def _listens(address: str) -> bool:
    """Whether anything takes connections there."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=5):
            return True
    except (OSError, ValueError):
        return False


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt
