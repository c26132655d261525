"""The application: routes, and nothing that computes. Made the same way for uvicorn and for Ray Serve.

Handlers take the raw request: bodies are read with a bound, checked by pydantic from their bytes, and answers are
written by orjson, so that the web layer is never what a request waits for.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from importlib.metadata import version
from typing import Any, TypeVar

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from augment_service.service import problems
from augment_service.service.access import Access
from augment_service.service.augmenter import Augmenter
from augment_service.service.body import read_body, while_connected
from augment_service.service.metrics import ServiceMetrics
from augment_service.service.middleware import Middleware, MiddlewareSettings
from augment_service.service.models import Models
from augment_service.service.openapi import AUGMENT, CANDIDATES, METRICS, STREAM, describe, health_responses
from augment_service.service.page_routes import add_page
from augment_service.service.requests import AugmentRequest, CandidatesRequest, Health, Limits
from shared.errors import ExpectedError, ModelError

logger = logging.getLogger(__name__)

LoadModels = Callable[[ServiceMetrics], Awaitable[Models]]
Body = TypeVar("Body", bound=CandidatesRequest)
Job = Coroutine[Any, Any, dict[str, Any]]
_TEXTS_AT_ONCE = 8
"""Texts of one request that are worked on at once."""


class State:
    """What the handlers share: the models once they are loaded, and why not when they are not."""

    def __init__(self) -> None:
        self.augmenter: Augmenter | None = None
        self.failure = ""
        self.is_draining = False

    def ready(self) -> Augmenter:
        """Raises ModelError while the models load, and when they could not be."""
        if self.augmenter is None:
            raise ModelError(self.failure or "the models are still loading; try again in a moment")
        return self.augmenter


def create_app(
    load_models: LoadModels,
    limits: Limits,
    access: Access,
    settings: MiddlewareSettings,
    cache_bytes: int = 256_000_000,
) -> FastAPI:
    """The application. `load_models` runs in the background at start, so that the process answers at once."""
    state, metrics = State(), ServiceMetrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(_load(state, load_models, limits, metrics, cache_bytes))
        yield
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        if state.augmenter is not None:
            await state.augmenter.close()

    app = FastAPI(
        title="TinyBERT augmentation",
        version=version("tinybert-augment-distill"),
        description="Samples and candidates of texts, by the engine of the batch job: the same text, id, seed and "
        "parameters give the same samples here and there, whatever else is being served.",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = state
    app.add_middleware(Middleware, access=access, settings=settings, metrics=metrics)
    _add_work(app, state, limits)
    _add_health(app, state, metrics)
    add_page(app)
    app.add_exception_handler(HTTPException, _http_problem)
    describe(app, limits, access.needs_token)
    return app


async def _load(
    state: State, load_models: LoadModels, limits: Limits, metrics: ServiceMetrics, cache_bytes: int
) -> None:
    try:
        models = await load_models(metrics)
        # The first request would wait for these otherwise.
        await asyncio.to_thread(lambda: (models.lexicon.vocabulary.is_whole_word, models.lexicon.splitter))
        state.augmenter = Augmenter(models, cache_bytes, limits.max_request_tokens, metrics)
        metrics.ready.set(1)
        logger.info("ready")
    except ExpectedError as error:
        state.failure = str(error)
        logger.error("models_not_loaded", extra={"fields": {"error": str(error)}})
    except Exception as error:
        state.failure = f"the models could not be loaded ({type(error).__name__}); the service's log has the reason"
        logger.exception("models_not_loaded")


def _add_work(app: FastAPI, state: State, limits: Limits) -> None:
    async def parse(request: Request, model: type[Body], is_stream: bool = False) -> Body:
        body = model.model_validate_json(await read_body(request, limits.max_body_bytes))
        limits.check(body, is_stream)
        return body

    async def answer(request: Request, work: Awaitable[Any]) -> Response:
        found = await while_connected(request, work)
        return Response(orjson.dumps(found), media_type="application/json")

    @app.post("/v1/augment", **AUGMENT)
    async def augment(request: Request) -> Response:
        body = await parse(request, AugmentRequest)
        return await answer(request, _list(_samples(state.ready(), body)))

    @app.post("/v1/candidates", **CANDIDATES)
    async def candidates(request: Request) -> Response:
        body = await parse(request, CandidatesRequest)
        augmenter, params = state.ready(), body.params()
        ticket = augmenter.ticket()
        return await answer(request, _list([augmenter.candidates(text, params, ticket) for text in body.texts]))

    @app.post("/v1/augment/stream", **STREAM)
    async def augment_stream(request: Request) -> Response:
        body = await parse(request, AugmentRequest, is_stream=True)
        # A refusal must come before the first byte of the answer.
        state.ready().models.admit()
        return StreamingResponse(_lines(_samples(state.ready(), body)), media_type="application/x-ndjson")


def _samples(augmenter: Augmenter, body: AugmentRequest) -> list[Job]:
    params, ticket = body.params(), augmenter.ticket()
    return [
        augmenter.samples(text, number, params, ticket) for number, text in enumerate(body.texts, start=body.first_id)
    ]


async def _in_order(jobs: list[Job]) -> AsyncGenerator[dict[str, Any], None]:
    """Results in order, a few texts worked on at once; what is under way is cancelled when the reader stops."""
    todo = iter(jobs)
    ahead: deque[asyncio.Task[dict[str, Any]]] = deque()
    try:
        while True:
            while len(ahead) < _TEXTS_AT_ONCE and (job := next(todo, None)) is not None:
                ahead.append(asyncio.create_task(job))
            if not ahead:
                return
            yield await ahead[0]
            ahead.popleft()
    finally:
        for task in ahead:
            task.cancel()
        await asyncio.gather(*ahead, return_exceptions=True)
        for job in todo:
            job.close()


async def _list(jobs: list[Job]) -> dict[str, Any]:
    if len(jobs) == 1:
        return {"results": [await jobs[0]]}
    async with aclosing(_in_order(jobs)) as results:
        return {"results": [one async for one in results]}


async def _lines(jobs: list[Job]) -> AsyncIterator[bytes]:
    """One line per text; a problem document as the last line on a fault."""
    try:
        async with aclosing(_in_order(jobs)) as results:
            async for one in results:
                yield orjson.dumps(one, option=orjson.OPT_APPEND_NEWLINE)
    except Exception as error:
        if not isinstance(error, ExpectedError):
            logger.error("stream_failed", extra={"fields": {"error": type(error).__name__}})
        yield bytes(problems.of_error(error).body) + b"\n"


def _add_health(app: FastAPI, state: State, metrics: ServiceMetrics) -> None:
    def health(status: str, code: int = 200, detail: str = "") -> Response:
        body = orjson.dumps({"status": status, "detail": detail})
        return Response(body, code, media_type="application/json", headers={"Cache-Control": "no-store"})

    @app.get("/healthz", response_model=Health, tags=["state"], summary="Does the process answer?")
    async def healthz() -> Response:
        return health("ok")

    @app.get("/readyz", **health_responses)
    async def readyz() -> Response:
        if state.is_draining:
            return health("draining", 503)
        if state.augmenter is not None:
            return health("ready")
        return health("failed" if state.failure else "loading", 503, state.failure)

    @app.get("/metrics", **METRICS)
    async def prometheus() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    details = {404: "there is nothing at this path", 405: "this path does not take this method"}
    headers = dict(error.headers) if error.headers else {}
    return problems.problem(error.status_code, details.get(error.status_code, str(error.detail)), headers=headers)
