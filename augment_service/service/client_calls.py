"""The part of the Python client that does no I/O: bodies, retry decisions, parsing of answers and streams.

`Client` and `AsyncClient` drive a Call: they send its body, pass it every response or connection error, and sleep for
the time that it returns.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import httpx

from augment_service.service.requests import AugmentRequest, CandidatesRequest
from augment_service.service.responses import Problem, TextSamples
from shared.cli.progress import counted

TextOrPair = str | Sequence[str]
FIRST_WAIT_SECONDS = 0.2
LONGEST_WAIT_SECONDS = 30.0
_RETRIED_STATUSES = (429, 503)
_MAX_TIMEOUTS = 2
"""Attempts that may hit our own timeout: the same work would most likely take as long again."""


class ServiceError(Exception):
    """The service refused a request or could not be reached. `problem`: the problem document, if it sent one."""

    def __init__(self, message: str, status: int | None = None, problem: Problem | None = None) -> None:
        super().__init__(message, status, problem)
        self.status, self.problem = status, problem

    def __str__(self) -> str:
        return str(self.args[0])


class Call:
    """One request and its retries.

    Requests are idempotent, because responses are pure functions of them. A request that was refused or lost (429, 503,
    a broken connection) is retried: after Retry-After seconds if the service sends that header, otherwise with
    exponential backoff. A request that hits our own timeout is retried once; one that hits the service's (504) is not,
    because the same work would take as long again.
    """

    augment_path: ClassVar[str] = "/v1/augment"

    def __init__(self, path: str, body: bytes, max_tries: int) -> None:
        self.path, self.body, self._max_tries = path, body, max_tries
        self._tries, self._num_timeouts = 1, 0

    @classmethod
    def augment(cls, texts: Sequence[TextOrPair], parameters: Mapping[str, Any], max_tries: int) -> Self:
        """A request for samples. Raises pydantic's ValidationError for parameters of the wrong form."""
        return cls(cls.augment_path, _body(AugmentRequest(texts=_plain(texts), **parameters)), max_tries)

    @classmethod
    def candidates(cls, texts: Sequence[TextOrPair], parameters: Mapping[str, Any], max_tries: int) -> Self:
        """A request for candidates. Raises pydantic's ValidationError for parameters of the wrong form."""
        return cls("/v1/candidates", _body(CandidatesRequest(texts=_plain(texts), **parameters)), max_tries)

    def wait_after_refusal(self, response: httpx.Response) -> float:
        """Seconds to wait before the next attempt. Raises ServiceError when a retry is pointless."""
        problem = None
        with contextlib.suppress(ValueError):
            problem = Problem.model_validate_json(response.content)
        # A 5xx without a problem document comes from a proxy that lost its replica; another replica may answer.
        is_lost = problem is None and response.status_code >= 500
        may_retry = self._tries < self._max_tries
        if (response.status_code in _RETRIED_STATUSES or is_lost) and may_retry:
            retry_after = response.headers.get("retry-after", "")
            return self._next_wait(float(retry_after) if retry_after.isdecimal() else None)
        if problem is None:
            raise ServiceError(f"the service responded with status {response.status_code}", response.status_code)
        raise ServiceError(f"{problem.status} {problem.code}: {problem.detail}", problem.status, problem)

    def wait_after_error(self, error: httpx.TransportError) -> float:
        """Seconds to wait before the next attempt. Raises ServiceError after the last one."""
        self._num_timeouts += isinstance(error, httpx.ReadTimeout)
        if self._tries >= self._max_tries or self._num_timeouts >= _MAX_TIMEOUTS:
            raise ServiceError(
                f"the service could not be reached after {counted(self._tries, 'attempt')}: {error!r}"
            ) from error
        return self._next_wait(None)

    def _next_wait(self, retry_after_seconds: float | None) -> float:
        self._tries += 1
        if retry_after_seconds is not None:
            return min(retry_after_seconds, LONGEST_WAIT_SECONDS)
        # Jitter, so that clients that were refused at the same time do not all retry at the same time.
        return min(FIRST_WAIT_SECONDS * 2.0 ** (self._tries - 2), LONGEST_WAIT_SECONDS) * random.uniform(0.5, 1.0)


class StreamCall(Call):
    """A request whose answer arrives in chunks, and the results parsed so far."""

    augment_path: ClassVar[str] = "/v1/augment/stream"

    def __init__(self, path: str, body: bytes, max_tries: int) -> None:
        super().__init__(path, body, max_tries)
        self._lines, self._num_done = LineBuffer(), 0

    def results(self, chunk: bytes) -> Iterator[TextSamples]:
        """The results completed by this chunk. Raises ServiceError when the service ended the stream early."""
        for line in self._lines.add(chunk):
            if line.startswith(b'{"type":'):
                problem = Problem.model_validate_json(line)
                raise ServiceError(f"the stream ended early: {problem.detail}", problem.status, problem)
            self._num_done += 1
            yield TextSamples.model_validate_json(line)

    def wait_after_error(self, error: httpx.TransportError) -> float:
        """Seconds to wait before the next attempt. Raises ServiceError after the last one or after a result."""
        # Results already yielded cannot be taken back, so a stream is retried only before its first one.
        if self._num_done:
            raise ServiceError(f"the stream was interrupted after {self._num_done} texts: {error!r}") from error
        self._lines = LineBuffer()
        return super().wait_after_error(error)


class LineBuffer:
    """Chunks of bytes -> lines. Only a line feed ends a line; httpx would also split at U+2028, which texts contain."""

    def __init__(self) -> None:
        self._rest = b""

    def add(self, chunk: bytes) -> list[bytes]:
        """The lines completed by the chunk, without their line feeds."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return lines


def headers(token: str | None) -> dict[str, str]:
    """HTTP headers of every request."""
    fixed = {"Content-Type": "application/json", "Accept": "application/json, application/x-ndjson"}
    return fixed | ({"Authorization": f"Bearer {token}"} if token else {})


def _body(request: CandidatesRequest) -> bytes:
    return request.model_dump_json(exclude_unset=True).encode()


def _plain(texts: Sequence[TextOrPair]) -> list[Any]:
    return [text if isinstance(text, str) else list(text) for text in texts]
