"""A second listener for the operator: health, metrics and /info without tokens, on a port that users cannot reach.

It runs on the service's event loop and stays up until the service has answered its last request.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI
from starlette.exceptions import HTTPException

from augment_service.service.connections import GuardedConfig
from augment_service.service.metrics import ServiceMetrics
from augment_service.service.problems import http_problem
from augment_service.service.state import State
from augment_service.service.state_routes import add_state_routes

MAX_CONNECTIONS = 64
_STOP_SECONDS = 1


class AdminServer:
    """Serves the state routes on an already bound socket."""

    def __init__(self, listener: socket.socket, state: State, metrics: ServiceMetrics) -> None:
        app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
        add_state_routes(app, state, metrics)
        app.add_exception_handler(HTTPException, http_problem)
        config = GuardedConfig(
            app,
            max_connections=MAX_CONNECTIONS,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
        self._server, self._listener = _QuietServer(config), listener
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listen. Call it from the event loop."""
        self._running = asyncio.create_task(self._server.serve(sockets=[self._listener]))

    async def stop(self) -> None:
        """Stop listening, and close the connections."""
        self._server.should_exit = True
        if self._running is not None:
            await self._running


class _QuietServer(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers: the service has its own."""
        yield
