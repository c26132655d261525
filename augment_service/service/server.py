"""`augment_service serve`: the application under uvicorn, with the models in this process.

On SIGTERM or Ctrl-C the service stops accepting connections, finishes the requests in flight within a time limit, and
exits with code 0.
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

from augment_service.config import ServeConfig
from augment_service.service.access import Access, check_binding, is_loopback, read_tokens
from augment_service.service.app import AppSettings, create_app
from augment_service.service.connections import GuardedConfig
from augment_service.service.metrics import ServiceMetrics
from augment_service.service.models import LocalModels, Models, NeighbourBatcher, load_batcher, load_vectors
from shared.cli.command_line import CommandResult
from shared.compute.memory import keep_freed_memory
from shared.errors import UsageError

logger = logging.getLogger(__name__)

BACKLOG = 2048


def run_command(config: ServeConfig) -> CommandResult:
    """Serve until SIGTERM or Ctrl-C. Raises UsageError before any model is loaded."""
    tokens = read_tokens(config.token_file)
    check_binding(config.host, bool(tokens), config.allow_without_token)
    keep_freed_memory()
    # OpenBLAS threads busy-wait for each other on the cores that the masked LM needs: with two of them, lookups that
    # take a tenth of a millisecond used seconds of processor time under load.
    threadpoolctl.threadpool_limits(1, user_api="blas")
    listener = _listen(config.host, config.port)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    logger.info("listening", extra={"fields": {"url": f"http://{shown}:{port}", "tokens": len(tokens)}})
    app = local_app(config, Access(tokens))
    server_config = GuardedConfig(
        app,
        max_connections=config.max_connections,
        loop="uvloop",
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        backlog=BACKLOG,
        timeout_graceful_shutdown=max(round(config.drain_seconds), 1),
    )
    _Server(server_config, app).run(sockets=[listener])
    logger.info("stopped")
    return CommandResult({"stopped": True})


def local_app(config: ServeConfig, access: Access) -> FastAPI:
    """The application, with the models in this process."""

    async def load(metrics: ServiceMetrics) -> Models:
        return await load_local_models(config, metrics)

    only_loopback = not access.needs_token and not config.allow_without_token and is_loopback(config.host)
    return create_app(load, AppSettings.of(config, access, only_loopback_hosts=only_loopback))


async def load_local_models(config: ServeConfig, metrics: ServiceMetrics) -> LocalModels:
    """Masked LM and vectors, loaded in parallel on two threads. Raises ModelError."""
    batcher, vectors = await asyncio.gather(
        asyncio.to_thread(load_batcher, config, metrics.passed), asyncio.to_thread(load_vectors, config)
    )
    metrics.watch_queue(lambda: batcher.queued_tokens, lambda: batcher.tokens_per_second)
    metrics.shares_passes.set(int(batcher.shares_passes))
    return LocalModels(batcher, NeighbourBatcher(vectors))


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
    """uvicorn's server, with a drain state, and an exit code of 0 after a signal (uvicorn raises the signal again)."""

    def __init__(self, config: GuardedConfig, app: FastAPI) -> None:
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
        self._app.state.service.drain()
        super().handle_exit(sig, frame)
