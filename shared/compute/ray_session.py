"""A Ray connection for one command: joins the named cluster or starts a private Ray; errors are one clear line."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

from shared.cli.signals import install, interruptible, num_received
from shared.errors import ClusterError


@contextlib.contextmanager
def ray_session(address: str, namespace: str | None = None) -> Iterator[tuple[Any, bool]]:
    """The connected ray module, and whether Ray was started for this command alone. Raises ClusterError.

    While the session is open, and while it opens, SIGTERM ends the command like Ctrl-C does.
    address: `auto` (the cluster in RAY_ADDRESS, otherwise a private Ray), `local` (a private Ray) or HOST:PORT.
    namespace: Ray's namespace for named actors (default: one of its own).
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_COLOR_PREFIX", "0")
    import ray

    address = _resolved(address)
    with interruptible():
        try:
            _connect(ray, address, namespace)
            yield ray, address == "local"
        finally:
            # Also after a partial start: processes of a private Ray must not outlive the command.
            ray.shutdown()


def is_private(address: str) -> bool:
    """Whether a session with this address starts a private Ray on this machine."""
    return _resolved(address) == "local"


def _resolved(address: str) -> str:
    """Without RAY_ADDRESS, `auto` starts a private Ray: joining whatever runs on a shared machine is a bad default."""
    return os.environ.get("RAY_ADDRESS", "local") if address == "auto" else address


def _connect(ray: Any, address: str, namespace: str | None) -> None:
    """`ray.init`, interruptible by signals. Raises ClusterError, KeyboardInterrupt."""
    received = num_received()
    if ":" in address and not _listens(address):
        # Ray itself would keep trying for minutes.
        raise ClusterError(_NOTHING_ANSWERS.format(address=address))
    try:
        ray.init(
            address=address,
            include_dashboard=False if address == "local" else None,
            log_to_driver=True,
            logging_level=logging.WARNING,
            namespace=namespace,
            configure_logging=True,
        )
    except SystemExit as error:
        # During its start, Ray installs a SIGTERM handler that exits at once.
        raise KeyboardInterrupt from error
    except Exception as error:
        if num_received() > received:
            raise KeyboardInterrupt from error
        raise _refused(address, error) from error
    install()
    if num_received() > received:
        raise KeyboardInterrupt


def ray_job_of(ray: Any) -> str:
    """Submission id if `ray job submit` started this process, otherwise Ray's own job id."""
    return str(os.environ.get("RAY_JOB_SUBMISSION_ID") or ray.get_runtime_context().get_job_id())


def _refused(address: str, error: Exception) -> ClusterError:
    """The error as one line for the user. For a wrong token, Ray only reports that it could not connect."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    is_about_token = "token" in str(error).lower() and "auth" in str(error).lower()
    if address == "local" or (":" not in address and not is_about_token):
        return ClusterError(f"Ray at {address}: {text}")
    if is_about_token or _listens(address):
        return ClusterError(
            f"Ray at {address} refused the connection ({text}). If the cluster requires a token, set "
            "RAY_AUTH_MODE=token and put its token in RAY_AUTH_TOKEN (or in the file ~/.ray/auth_token); if it does "
            "not use tokens, set RAY_AUTH_MODE=disabled"
        )
    return ClusterError(_NOTHING_ANSWERS.format(address=address))


_NOTHING_ANSWERS = "nothing answers at {address}: check the address, and that `ray start --head` is running there"


def _listens(address: str) -> bool:
    """Whether anything accepts connections at the address."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=5):
            return True
    except (OSError, ValueError):
        return False
