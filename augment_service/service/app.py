"""The FastAPI application: routes, middleware and state. uvicorn and Ray Serve use the same factory.

Handlers take the raw request: they read bodies with a size limit, validate the bytes with pydantic, and write responses
with orjson, so that the web layer stays cheap compared with the models.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from importlib.metadata import version
from typing import Self

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from augment_service.config import ServeConfig
from augment_service.service import problems
from augment_service.service.access import Access
from augment_service.service.admission import Gate
from augment_service.service.limits import Limits
from augment_service.service.metrics import ServiceMetrics
from augment_service.service.middleware import Middleware, MiddlewareSettings
from augment_service.service.openapi import describe
from augment_service.service.page_routes import add_page
from augment_service.service.state import LoadModels, State
from augment_service.service.state_routes import add_state_routes
from augment_service.service.text_routes import add_text_routes

DESCRIPTION = (
    "Samples and candidates for texts, using the engine of the batch job: the same text, id, seed and parameters give "
    "the same samples in both, regardless of concurrent requests."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppSettings:
    """Everything that the operator chose, except for the models."""

    access: Access
    limits: Limits
    middleware: MiddlewareSettings
    cache_bytes: int
    max_requests: int
    max_answer_bytes: int
    memory_budget: int

    @classmethod
    def of(cls, config: ServeConfig, access: Access, *, only_loopback_hosts: bool = False) -> Self:
        """The settings in the options of `augment_service serve`."""
        return cls(
            access=access,
            limits=Limits(**{one.name: getattr(config, one.name) for one in fields(Limits)}),
            middleware=MiddlewareSettings(
                max_body_bytes=config.max_body_bytes,
                body_seconds=config.body_seconds,
                request_seconds=config.request_seconds,
                access_log=config.access_log,
                only_loopback_hosts=only_loopback_hosts,
            ),
            cache_bytes=config.cache_bytes,
            max_requests=config.max_requests,
            max_answer_bytes=config.max_answer_bytes,
            memory_budget=config.memory_budget,
        )


def create_app(load_models: LoadModels, settings: AppSettings) -> FastAPI:
    """The application. `load_models` runs in the background after the start, so that health checks answer at once."""
    state, metrics = State(), ServiceMetrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(
            state.load(
                load_models,
                cache_bytes=settings.cache_bytes,
                max_tokens=settings.limits.max_request_tokens,
                metrics=metrics,
            )
        )
        yield
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        await state.close()

    app = FastAPI(
        title="TinyBERT augmentation",
        version=version("tinybert-augment-distill"),
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = state
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
    add_text_routes(app, state, settings.limits)
    add_state_routes(app, state, metrics)
    add_page(app)
    app.add_exception_handler(HTTPException, _http_problem)
    describe(app, settings.limits, settings.access.needs_token)
    return app


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    details = {404: "no route matches this path", 405: "this path does not support this method"}
    headers = dict(error.headers) if error.headers else {}
    return problems.problem(error.status_code, details.get(error.status_code, str(error.detail)), headers=headers)
