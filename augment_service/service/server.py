"""`augment_service serve`: the application under uvicorn, with the models in this process.

On SIGTERM or Ctrl-C the service stops taking connections, finishes what it has begun within a time, and exits with 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from typing import Any

import threadpoolctl
import uvicorn
from fastapi import FastAPI

from augment_service.config import ModelChoice, ServeConfig
from augment_service.service.access import Access, check_binding, is_loopback, read_tokens
from augment_service.service.app import create_app
from augment_service.service.connections import GuardedProtocol
from augment_service.service.metrics import ServiceMetrics
from augment_service.service.middleware import MiddlewareSettings
from augment_service.service.models import LocalModels, Models, NeighbourBatcher, load_batcher, load_vectors
from augment_service.service.requests import Limits
from shared.cli.command_line import CommandResult
from shared.compute.memory import keep_freed_memory
from shared.errors import UsageError

logger = logging.getLogger(__name__)

BACKLOG = 2048


def run_command(config: ServeConfig) -> CommandResult:
    """Serve until SIGTERM or Ctrl-C. Raises UsageError before any model loads."""
    tokens = read_tokens(config.token_file)
    check_binding(config.host, bool(tokens), config.allow_without_token)
    keep_freed_memory()
    # OpenBLAS's threads spin while they wait for each other, on the cores that the masked LM computes on: with two of
    # them, a tenth of a millisecond's work on the vectors took seconds of processor time under load.
    threadpoolctl.threadpool_limits(1, user_api="blas")
    listener = _listen(config.host, config.port)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    logger.info("listening", extra={"fields": {"url": f"http://{shown}:{port}", "tokens": len(tokens)}})
    app = local_app(config, Access(tokens))
    GuardedProtocol.max_connections = config.max_connections
    server = _Server(
        uvicorn.Config(
            app, http=GuardedProtocol, loop="uvloop", log_config=None, access_log=False, server_header=False,
            ws="none", backlog=BACKLOG, timeout_graceful_shutdown=max(round(config.drain_seconds), 1),
        ),
        app,
    )  # fmt: skip
    server.run(sockets=[listener])
    logger.info("stopped")
    return CommandResult({"stopped": True})


def local_app(config: ServeConfig, access: Access) -> FastAPI:
    """The application with models of this process."""

    async def load(metrics: ServiceMetrics) -> Models:
        return await load_local_models(config, config.threads, config.max_wait_ms, config.queue_seconds, metrics)

    only_loopback = not access.needs_token and not config.allow_without_token and is_loopback(config.host)
    settings = MiddlewareSettings(config.max_requests, config.request_seconds, only_loopback)
    return create_app(load, limits_of(config), access, settings, config.cache_bytes)


async def load_local_models(
    choice: ModelChoice, threads: int | None, max_wait_ms: float, queue_seconds: float, metrics: ServiceMetrics
) -> LocalModels:
    """Masked LM and vectors, loaded beside each other on threads. Raises ModelError."""
    batcher, vectors = await asyncio.gather(
        asyncio.to_thread(load_batcher, choice, threads, max_wait_ms, queue_seconds),
        asyncio.to_thread(load_vectors, choice),
    )
    batcher.report = metrics.passed
    metrics.watch_queue(lambda: batcher.queued_tokens, lambda: batcher.tokens_per_second)
    metrics.shares_passes.set(int(batcher.shares_passes))
    return LocalModels(batcher, NeighbourBatcher(vectors))


def limits_of(config: ServeConfig) -> Limits:
    """The limits that the operator chose."""
    return Limits(**{name: getattr(config, name) for name in Limits.__dataclass_fields__})


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise UsageError(f"--host {host} --port {port}: {error.strerror or error}") from error
    return listener


class _Server(uvicorn.Server):
    """uvicorn's server, which says that it drains, and does not die of the signal that it obeyed."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        previous = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for one, handler in previous.items():
                signal.signal(one, handler)

    def handle_exit(self, sig: int, frame: Any) -> None:
        logger.info("draining", extra={"fields": {"signal": signal.Signals(sig).name}})
        self._app.state.service.is_draining = True
        super().handle_exit(sig, frame)
