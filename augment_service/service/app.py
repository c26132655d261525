"""The FastAPI application: routes, middleware and state. uvicorn and Ray Serve use the same factory.

Handlers take the raw request: they read bodies with a size limit, validate the bytes with pydantic, and write responses
with orjson, so that the web layer stays cheap compared with the models.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from importlib.metadata import version
from typing import Self

from fastapi import FastAPI
from starlette.exceptions import HTTPException

from augment_service.config import ServeConfig
from augment_service.service import problems
from augment_service.service.access import Access
from augment_service.service.admission import Gate
from augment_service.service.cors import Cors
from augment_service.service.garbage import collect_when_idle
from augment_service.service.info import info
from augment_service.service.limits import Limits
from augment_service.service.metrics import ServiceMetrics
from augment_service.service.middleware import Middleware, MiddlewareSettings
from augment_service.service.openapi import describe
from augment_service.service.page_routes import add_page
from augment_service.service.state import LoadModels, State
from augment_service.service.state_routes import add_state_routes
from augment_service.service.text_routes import add_text_routes
from augment_service.service.token_watch import TokenWatch
from augment_service.service.traces import make_tracer

DESCRIPTION = (
    "Samples and candidates for texts, using the engine of the batch job: the same text, id, seed and parameters give "
    "the same samples in both, regardless of concurrent requests."
)


SWITCH_SECONDS = 0.0005
"""Interpreter switch interval: how long a worker thread may hold the GIL while the event loop waits for it. A small
request needs it several times, and Python's default is 5 ms each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppSettings:
    """All of the operator's settings except the models."""

    access: Access
    token_file: str | None
    limits: Limits
    middleware: MiddlewareSettings
    cache_bytes: int
    max_requests: int
    max_answer_bytes: int
    memory_budget: int
    gzip: bool

    @classmethod
    def of(
        cls, config: ServeConfig, access: Access, *, only_loopback_hosts: bool, sends_request_id: bool = True
    ) -> Self:
        """The settings from the options of `augment_service serve`."""
        return cls(
            access=access,
            token_file=config.token_file,
            limits=Limits(**{one.name: getattr(config, one.name) for one in fields(Limits)}),
            middleware=MiddlewareSettings(
                max_body_bytes=config.max_body_bytes,
                body_seconds=config.body_seconds,
                request_seconds=config.request_seconds,
                slow_seconds=config.slow_seconds,
                access_log=config.access_log,
                root_path=config.root_path,
                cors=Cors(config.cors_origin),
                tracer=make_tracer(config.traces),
                only_loopback_hosts=only_loopback_hosts,
                sends_request_id=sends_request_id,
            ),
            cache_bytes=config.cache_bytes,
            max_requests=config.max_requests,
            max_answer_bytes=config.max_answer_bytes,
            memory_budget=config.memory_budget,
            gzip=config.gzip,
        )


def create_app(load_models: LoadModels, settings: AppSettings) -> FastAPI:
    """The application. `load_models` runs in the background after startup, so that health checks answer at once."""
    state, metrics = State(), ServiceMetrics()
    watch = TokenWatch(settings.access, settings.token_file) if settings.token_file is not None else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        sys.setswitchinterval(SWITCH_SECONDS)
        loading = state.load(
            load_models,
            cache_bytes=settings.cache_bytes,
            max_tokens=settings.limits.max_request_tokens,
            metrics=metrics,
        )
        collecting = collect_when_idle(lambda: gate.bodies.taken + gate.answers.taken == 0)
        running = [loading, collecting, *([watch.run()] if watch is not None else [])]
        tasks = [asyncio.create_task(one) for one in running]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await state.close()

    app = FastAPI(
        title="TinyBERT augmentation",
        version=version("tinybert-augment-distill"),
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        root_path=settings.middleware.root_path,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service, app.state.token_watch = state, watch
    gate = Gate(
        max_requests=settings.max_requests,
        max_answer_bytes=settings.max_answer_bytes,
        memory_budget=settings.memory_budget,
    )
    metrics.watch_memory(lambda: gate.bodies.taken + gate.answers.taken)
    app.add_middleware(
        Middleware,
        access=settings.access,
        settings=settings.middleware,
        metrics=metrics,
        gate=gate,
        deadlines=state.deadlines,
    )
    state.describe = lambda: info(
        state.models_info(), settings.limits, settings.max_answer_bytes, settings.access.needs_token
    )
    app.state.metrics, app.state.turns = metrics, gate.turns
    add_text_routes(app, state, settings.limits, gzip=settings.gzip)
    add_state_routes(app, state, metrics)
    add_page(app)
    app.add_exception_handler(HTTPException, problems.http_problem)
    describe(app, settings.limits, settings.access.needs_token)
    return app
