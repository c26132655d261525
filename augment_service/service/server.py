"""`augment_service serve`: the application under uvicorn, with the models in this process.

On SIGTERM or Ctrl-C the service stops accepting connections, drains the requests in flight within a time limit, and
exits with code 0. If its models cannot be loaded it exits with code 1, so that its supervisor notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import threadpoolctl
import uvicorn
from fastapi import FastAPI

from augment_service.config import ServeConfig
from augment_service.service.access import Access, check_binding, is_loopback
from augment_service.service.admin import AdminServer
from augment_service.service.app import AppSettings, create_app
from augment_service.service.connections import GuardedConfig
from augment_service.service.descriptors import usable_connections
from augment_service.service.environment import log_unknown_variables
from augment_service.service.loading import check_paths, load_local_models
from augment_service.service.metrics import ServiceMetrics
from augment_service.service.models import Models
from augment_service.service.state import State
from augment_service.service.tokens import read_tokens
from shared.cli.command_line import CommandResult
from shared.compute.memory import keep_freed_memory
from shared.errors import ModelError, UsageError

logger = logging.getLogger(__name__)

BACKLOG = 65_535
"""Listen backlog: as many connections as the system allows (net.core.somaxconn)."""
ACCEPTED_AT_ONCE = 32
"""How many times the socket is registered as a listener. uvloop accepts one connection per listener and iteration of
the event loop, so with one of them a crowd that reconnects would keep others in the backlog for most of a minute."""
_LAST_RESORT_SECONDS = 5.0
"""Time after the drain period until connections are cut whose clients do not read the refusal."""


def run_command(config: ServeConfig) -> CommandResult:
    """Serve until SIGTERM or Ctrl-C. Raises UsageError before any model is loaded, ModelError when one cannot be."""
    tokens = read_tokens(config.token_file)
    check_binding(config.host, bool(tokens), config.allow_without_token)
    check_paths(config)
    keep_freed_memory()
    # OpenBLAS threads busy-wait for each other on the cores that the masked LM needs: with two of them, lookups that
    # take 0.1 ms used seconds of CPU time under load.
    threadpoolctl.threadpool_limits(1, user_api="blas")
    listener = _listen(config.host, config.port)
    logger.info("listening", extra={"fields": {"url": _url(listener), "tokens": len(tokens)}})
    log_unknown_variables()
    access = Access(tokens)
    app = local_app(config, access)
    admin = None
    if config.admin_port is not None:
        admin_listener = _listen(config.admin_host, config.admin_port, "admin-")
        logger.info("admin_listening", extra={"fields": {"url": _url(admin_listener)}})
        admin = AdminServer(admin_listener, app.state.service, app.state.metrics)
    server_config = GuardedConfig(
        app,
        max_connections=usable_connections(config.max_connections),
        count_refusal=app.state.metrics.rejected,
        turns=app.state.turns,
        loop="uvloop",
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        backlog=BACKLOG,
        timeout_graceful_shutdown=round(config.drain_seconds + _LAST_RESORT_SECONDS),
    )
    server = _Server(
        server_config, app.state.service, drain_delay=config.drain_delay, drain_seconds=config.drain_seconds
    )
    server.admin = admin
    if app.state.token_watch is not None:
        server.on_hangup = app.state.token_watch.read
    server.run(sockets=[listener, *(listener.dup() for _ in range(ACCEPTED_AT_ONCE - 1))])
    if server.failure:
        raise ModelError(server.failure)
    logger.info("stopped")
    return CommandResult({"stopped": True})


def local_app(config: ServeConfig, access: Access) -> FastAPI:
    """The application, with the models in this process."""

    async def load(metrics: ServiceMetrics) -> Models:
        return await load_local_models(config, metrics)

    only_loopback = not access.needs_token and not config.allow_without_token and is_loopback(config.host)
    return create_app(load, AppSettings.of(config, access, only_loopback_hosts=only_loopback))


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _listen(host: str, port: int, option: str = "") -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        message = f"--{option}host {host} --{option}port {port}: {error.strerror or error}"
        raise UsageError(message) from error
    return listener


class _Server(uvicorn.Server):
    """uvicorn's server with a two-step drain and its own exit code (uvicorn would raise the signal again).

    After a signal /readyz returns 503. `drain_delay` seconds later the listener closes, and the requests in flight have
    `drain_seconds` more; those still unanswered then get a 503. A second signal skips the delay.
    """

    def __init__(self, config: GuardedConfig, state: State, *, drain_delay: float, drain_seconds: float) -> None:
        super().__init__(config)
        self.failure = ""
        self.admin: AdminServer | None = None
        self.on_hangup: Callable[[], None] | None = None
        self._state, self._drain_delay, self._drain_seconds = state, drain_delay, drain_seconds
        self._closes_at: float | None = None
        state.on_load_failure = self._fail

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        previous = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGTERM, signal.SIGINT)}
        if self.on_hangup is not None:
            previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._handle_hangup)
        try:
            yield
        finally:
            for one, handler in previous.items():
                signal.signal(one, handler)

    def _handle_hangup(self, sig: int, frame: Any) -> None:
        assert self.on_hangup is not None
        self.on_hangup()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self.admin is not None:
            self.admin.start()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: Any) -> None:
        if self._closes_at is None and not self.should_exit and self._drain_delay:
            self._closes_at = time.monotonic() + self._drain_delay
        else:
            super().handle_exit(sig, frame)
        logger.info("draining", extra={"fields": {"signal": signal.Signals(sig).name}})
        self._state.drain()

    async def on_tick(self, counter: int) -> bool:
        if self._closes_at is not None and time.monotonic() >= self._closes_at:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        ending = asyncio.get_running_loop().call_later(self._drain_seconds, self._state.deadlines.end)
        await super().shutdown(sockets)
        ending.cancel()
        if self.admin is not None:
            await self.admin.stop()

    def _fail(self, reason: str) -> None:
        self.failure, self.should_exit = reason, True
