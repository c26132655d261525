"""A typed client of the service, blocking and asynchronous. Needs httpx and pydantic, none of the models.

Answers are pure functions of the request, so a request that got no answer (503, 429, a broken connection) is simply
sent again: after the seconds of Retry-After when the service names them, else after a time that doubles, a bounded
number of times.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Self

import httpx

from augment_service.service.requests import (
    AugmentRequest,
    AugmentResponse,
    CandidatesRequest,
    CandidatesResponse,
    Problem,
    TextCandidateSets,
    TextSamples,
)

TextOrPair = str | Sequence[str]
FIRST_WAIT_SECONDS = 0.2
LONGEST_WAIT_SECONDS = 30.0
_AGAIN = (429, 503)


class ServiceError(Exception):
    """The service refused a request, or could not be reached. `problem`: its document, if it sent one."""

    def __init__(self, message: str, status: int | None = None, problem: Problem | None = None) -> None:
        super().__init__(message, status, problem)
        self.status, self.problem = status, problem

    def __str__(self) -> str:
        return str(self.args[0])


class Client:
    """Blocking client; use as a context manager.

    max_tries: of one request; timeout_seconds: of one try. Parameters of the methods are those of the HTTP request.
    """

    def __init__(
        self, url: str, token: str | None = None, max_tries: int = 5, timeout_seconds: float = 90.0, **options: Any
    ) -> None:
        self._max_tries = max_tries
        self._http = httpx.Client(base_url=url, headers=_headers(token), timeout=timeout_seconds, **options)

    def augment(self, texts: Sequence[TextOrPair], **parameters: Any) -> list[TextSamples]:
        """Samples of each text, in order. Raises ServiceError."""
        return AugmentResponse.model_validate_json(self._post("/v1/augment", _augment(texts, parameters))).results

    def candidates(self, texts: Sequence[TextOrPair], **parameters: Any) -> list[TextCandidateSets]:
        """Words and candidates of each text, in order. Raises ServiceError."""
        body = _candidates(texts, parameters)
        return CandidatesResponse.model_validate_json(self._post("/v1/candidates", body)).results

    def augment_stream(self, texts: Sequence[TextOrPair], **parameters: Any) -> Iterator[TextSamples]:
        """Samples of many texts, each as soon as it is done, in order. Raises ServiceError."""
        body = _augment(texts, parameters)
        for tried in range(1, self._max_tries + 1):
            num_done = 0
            try:
                with self._http.stream("POST", "/v1/augment/stream", content=body) as response:
                    if response.status_code != 200:
                        response.read()
                        time.sleep(_wait_or_raise(response, tried, self._max_tries))
                        continue
                    lines = _Lines()
                    for chunk in response.iter_bytes():
                        for line in lines.add(chunk):
                            yield _text_samples(line)
                            num_done += 1
                    return
            except httpx.TransportError as error:
                # Lines that were handed out cannot be taken back: only a stream that never began is tried again.
                if num_done:
                    raise ServiceError(f"the stream broke off after {num_done} texts: {error!r}") from error
                time.sleep(_wait_after(error, tried, self._max_tries))

    def is_ready(self) -> bool:
        """Whether the models are loaded and requests are taken."""
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _post(self, path: str, body: bytes) -> bytes:
        for tried in range(1, self._max_tries + 1):
            try:
                response = self._http.post(path, content=body)
            except httpx.TransportError as error:
                time.sleep(_wait_after(error, tried, self._max_tries))
                continue
            if response.status_code == 200:
                return response.content
            time.sleep(_wait_or_raise(response, tried, self._max_tries))
        raise AssertionError("the last try raises")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient:
    """The same for asyncio; use as an asynchronous context manager."""

    def __init__(
        self, url: str, token: str | None = None, max_tries: int = 5, timeout_seconds: float = 90.0, **options: Any
    ) -> None:
        self._max_tries = max_tries
        self._http = httpx.AsyncClient(base_url=url, headers=_headers(token), timeout=timeout_seconds, **options)

    async def augment(self, texts: Sequence[TextOrPair], **parameters: Any) -> list[TextSamples]:
        """Samples of each text, in order. Raises ServiceError."""
        body = _augment(texts, parameters)
        return AugmentResponse.model_validate_json(await self._post("/v1/augment", body)).results

    async def candidates(self, texts: Sequence[TextOrPair], **parameters: Any) -> list[TextCandidateSets]:
        """Words and candidates of each text, in order. Raises ServiceError."""
        body = _candidates(texts, parameters)
        return CandidatesResponse.model_validate_json(await self._post("/v1/candidates", body)).results

    async def augment_stream(self, texts: Sequence[TextOrPair], **parameters: Any) -> AsyncIterator[TextSamples]:
        """Samples of many texts, each as soon as it is done, in order. Raises ServiceError."""
        body = _augment(texts, parameters)
        for tried in range(1, self._max_tries + 1):
            num_done = 0
            try:
                async with self._http.stream("POST", "/v1/augment/stream", content=body) as response:
                    if response.status_code != 200:
                        await response.aread()
                        await asyncio.sleep(_wait_or_raise(response, tried, self._max_tries))
                        continue
                    lines = _Lines()
                    async for chunk in response.aiter_bytes():
                        for line in lines.add(chunk):
                            yield _text_samples(line)
                            num_done += 1
                    return
            except httpx.TransportError as error:
                if num_done:
                    raise ServiceError(f"the stream broke off after {num_done} texts: {error!r}") from error
                await asyncio.sleep(_wait_after(error, tried, self._max_tries))

    async def is_ready(self) -> bool:
        """Whether the models are loaded and requests are taken."""
        try:
            return (await self._http.get("/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _post(self, path: str, body: bytes) -> bytes:
        for tried in range(1, self._max_tries + 1):
            try:
                response = await self._http.post(path, content=body)
            except httpx.TransportError as error:
                await asyncio.sleep(_wait_after(error, tried, self._max_tries))
                continue
            if response.status_code == 200:
                return response.content
            await asyncio.sleep(_wait_or_raise(response, tried, self._max_tries))
        raise AssertionError("the last try raises")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _headers(token: str | None) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "Accept": "application/json, application/x-ndjson"}
    return headers | ({"Authorization": f"Bearer {token}"} if token else {})


def _augment(texts: Sequence[TextOrPair], parameters: dict[str, Any]) -> bytes:
    return AugmentRequest(texts=_plain(texts), **parameters).model_dump_json(exclude_unset=True).encode()


def _candidates(texts: Sequence[TextOrPair], parameters: dict[str, Any]) -> bytes:
    return CandidatesRequest(texts=_plain(texts), **parameters).model_dump_json(exclude_unset=True).encode()


def _plain(texts: Sequence[TextOrPair]) -> list[Any]:
    return [text if isinstance(text, str) else list(text) for text in texts]


class _Lines:
    """Bytes as they come -> whole lines. Only a line feed ends one: texts may hold U+2028, which httpx splits at."""

    def __init__(self) -> None:
        self._rest = b""

    def add(self, chunk: bytes) -> list[bytes]:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return lines


def _text_samples(line: bytes) -> TextSamples:
    if line.startswith(b'{"type":'):
        problem = Problem.model_validate_json(line)
        raise ServiceError(f"the stream ended early: {problem.detail}", problem.status, problem)
    return TextSamples.model_validate_json(line)


def _wait_or_raise(response: httpx.Response, tried: int, max_tries: int) -> float:
    """Seconds to wait before the next try. Raises ServiceError when there is none."""
    problem = None
    with contextlib.suppress(ValueError):
        problem = Problem.model_validate_json(response.content)
    # An error without a problem is not the service's own: a proxy lost the replica that it asked. Asking twice is safe.
    is_lost = problem is None and response.status_code >= 500
    if (response.status_code in _AGAIN or is_lost) and tried < max_tries:
        named = response.headers.get("retry-after", "")
        return min(float(named), LONGEST_WAIT_SECONDS) if named.isdecimal() else _growing_wait(tried)
    if problem is None:
        raise ServiceError(f"the service answered {response.status_code}", response.status_code)
    raise ServiceError(f"{problem.status} {problem.code}: {problem.detail}", problem.status, problem)


def _wait_after(error: httpx.TransportError, tried: int, max_tries: int) -> float:
    if tried < max_tries:
        return _growing_wait(tried)
    raise ServiceError(f"the service could not be reached in {max_tries} tries: {error!r}") from error


def _growing_wait(tried: int) -> float:
    # Spread, so that clients that were refused together do not come back together.
    return min(FIRST_WAIT_SECONDS * 2.0 ** (tried - 1), LONGEST_WAIT_SECONDS) * random.uniform(0.5, 1.0)
