"""Ray for one run: join the cluster that is named, or start one of our own; one clear line when it refuses."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
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
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    everything = str(error).lower()
    if "auth" in everything and ("token" in everything or "unauthenticated" in everything):
        return ClusterError(
            f"Ray at {address} asks for a token and did not accept ours: {text} Set RAY_AUTH_MODE=token with the "
            "cluster's token in RAY_AUTH_TOKEN (or in the file ~/.ray/auth_token or RAY_AUTH_TOKEN_PATH)"
        )
    return ClusterError(f"Ray at {address}: {text}")


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt
