"""Routes for texts: /v1/augment, /v1/candidates and /v1/augment/stream.

The middleware has already read the body and given the request its slot. Answers are serialised text by text and sent as
fast as the client reads them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from fastapi.routing import APIRoute

from augment_service.service import problems
from augment_service.service.admission import Lease
from augment_service.service.augmenter import Augmenter
from augment_service.service.body import while_connected
from augment_service.service.estimates import TEXTS_AT_ONCE, estimate
from augment_service.service.json_parts import JsonParts, accepts_gzip
from augment_service.service.limits import Limits
from augment_service.service.openapi import AUGMENT, CANDIDATES, STREAM
from augment_service.service.requests import AugmentRequest, CandidatesRequest
from augment_service.service.state import State
from shared.errors import ExpectedError

logger = logging.getLogger(__name__)

Body = TypeVar("Body", bound=CandidatesRequest)
Job = Coroutine[Any, Any, bytes]


class _PlainRoute(APIRoute):
    """A route whose function gets only the request."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The function itself, without FastAPI's dependencies."""
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler


def add_text_routes(app: FastAPI, state: State, limits: Limits, *, gzip: bool) -> None:
    """Add the routes to the application."""

    def parse(request: Request, model: type[Body], is_stream: bool = False) -> tuple[Body, Lease]:
        lease: Lease = request.scope["lease"]
        body = model.model_validate_json(lease.body)
        limits.check(body, is_stream)
        size = estimate(body, is_stream=is_stream)
        lease.reserve(answer_bytes=size.answer_bytes, held_bytes=size.held_bytes)
        lease.end_turn()
        return body, lease

    async def answer(request: Request, body: CandidatesRequest, jobs: Iterator[Job], lease: Lease) -> Response:
        parts = await while_connected(request, _results(jobs, len(body.texts), lease))
        response = JsonParts(parts, may_compress=gzip and accepts_gzip(request.headers.get("accept-encoding", "")))
        if gzip:
            response.headers["vary"] = "accept-encoding"
        return response

    router = APIRouter(route_class=_PlainRoute)

    @router.post("/v1/augment", **AUGMENT)
    async def augment(request: Request) -> Response:
        body, lease = parse(request, AugmentRequest)
        return await answer(request, body, _sample_jobs(state.ready(), body), lease)

    @router.post("/v1/candidates", **CANDIDATES)
    async def candidates(request: Request) -> Response:
        body, lease = parse(request, CandidatesRequest)
        return await answer(request, body, _candidate_jobs(state.ready(), body), lease)

    @router.post("/v1/augment/stream", **STREAM)
    async def augment_stream(request: Request) -> Response:
        body, _ = parse(request, AugmentRequest, is_stream=True)
        # Checked now: once the first byte is sent, the status can no longer report overload.
        await state.ready().models.admit()
        return StreamingResponse(_lines(_sample_jobs(state.ready(), body)), media_type="application/x-ndjson")

    app.include_router(router)


def _sample_jobs(augmenter: Augmenter, body: AugmentRequest) -> Iterator[Job]:
    """A job per text, each made when it is its turn: thousands of waiting ones would slow down garbage collection."""
    params, ticket = body.params(), augmenter.ticket()
    return (augmenter.samples(text, id_, params, ticket) for id_, text in enumerate(body.texts, start=body.first_id))


def _candidate_jobs(augmenter: Augmenter, body: CandidatesRequest) -> Iterator[Job]:
    params, ticket = body.params(), augmenter.ticket()
    return (augmenter.candidates(text, params, ticket) for text in body.texts)


async def _results(jobs: Iterator[Job], num_jobs: int, lease: Lease) -> deque[bytes]:
    if num_jobs == 1:
        parts = deque([await next(jobs)])
        lease.grow(len(parts[0]))
        return parts
    parts, size = deque[bytes](), 0
    async with aclosing(_in_order(jobs)) as results:
        async for one in results:
            parts.append(one)
            size += len(one)
            lease.grow(size)
    return parts


async def _lines(jobs: Iterator[Job]) -> AsyncIterator[bytes]:
    """One JSON line per text; after an error, a problem document as the last line."""
    try:
        async with aclosing(_in_order(jobs)) as results:
            async for one in results:
                yield one + b"\n"
    except Exception as error:
        if not isinstance(error, ExpectedError):
            logger.error("stream_failed", extra={"fields": {"error": type(error).__name__}})
        yield bytes(problems.of_error(error).body) + b"\n"


async def _in_order(jobs: Iterator[Job]) -> AsyncGenerator[bytes, None]:
    """Results in job order, with a few jobs running at once. Closing the generator cancels the running ones."""
    running: deque[asyncio.Task[bytes]] = deque()
    try:
        while True:
            while len(running) < TEXTS_AT_ONCE and (job := next(jobs, None)) is not None:
                running.append(asyncio.create_task(job))
            if not running:
                return
            yield await running[0]
            running.popleft()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        # A failed task refers to this frame through its exception.
        running.clear()
