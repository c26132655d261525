"""A typed client of the service, blocking and asynchronous. It needs httpx and pydantic, but no models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Self

import httpx

from augment_service.service.client_calls import Call, ServiceError, StreamCall, TextOrPair, headers
from augment_service.service.responses import AugmentResponse, CandidatesResponse, TextCandidateSets, TextSamples

__all__ = ["AsyncClient", "Client", "ServiceError"]


class Client:
    """Blocking client; use it as a context manager.

    max_tries: attempts per request. timeout_seconds: timeout of one attempt. `options` are passed to httpx.Client. The
    methods' keyword arguments are the fields of the HTTP request, such as n_a, k, seed.
    """

    def __init__(
        self, url: str, *, token: str | None = None, max_tries: int = 5, timeout_seconds: float = 90.0, **options: Any
    ) -> None:
        self._max_tries = max_tries
        self._http = httpx.Client(base_url=url, headers=headers(token), timeout=timeout_seconds, **options)

    def augment(self, texts: Sequence[TextOrPair], **parameters: Any) -> list[TextSamples]:
        """Samples of each text, in order. Raises ServiceError."""
        call = Call.augment(texts, parameters, self._max_tries)
        return AugmentResponse.model_validate_json(self._answer(call)).results

    def candidates(self, texts: Sequence[TextOrPair], **parameters: Any) -> list[TextCandidateSets]:
        """Words and candidates of each text, in order. Raises ServiceError."""
        call = Call.candidates(texts, parameters, self._max_tries)
        return CandidatesResponse.model_validate_json(self._answer(call)).results

    def augment_stream(self, texts: Sequence[TextOrPair], **parameters: Any) -> Iterator[TextSamples]:
        """Samples of many texts, in order, each as soon as it is ready. Raises ServiceError."""
        call = StreamCall.augment(texts, parameters, self._max_tries)
        while True:
            try:
                with self._http.stream("POST", call.path, content=call.body) as response:
                    if response.status_code == 200:
                        for chunk in response.iter_bytes():
                            yield from call.results(chunk)
                        return
                    response.read()
                wait = call.wait_after_refusal(response)
            except httpx.TransportError as error:
                wait = call.wait_after_error(error)
            time.sleep(wait)

    def is_ready(self) -> bool:
        """Whether the models are loaded and requests are accepted."""
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _answer(self, call: Call) -> bytes:
        while True:
            try:
                response = self._http.post(call.path, content=call.body)
                if response.status_code == 200:
                    return response.content
                wait = call.wait_after_refusal(response)
            except httpx.TransportError as error:
                wait = call.wait_after_error(error)
            time.sleep(wait)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient:
    """Client for asyncio, with the methods of Client; use it as an asynchronous context manager."""

    def __init__(
        self, url: str, *, token: str | None = None, max_tries: int = 5, timeout_seconds: float = 90.0, **options: Any
    ) -> None:
        self._max_tries = max_tries
        self._http = httpx.AsyncClient(base_url=url, headers=headers(token), timeout=timeout_seconds, **options)

    async def augment(self, texts: Sequence[TextOrPair], **parameters: Any) -> list[TextSamples]:
        """Samples of each text, in order. Raises ServiceError."""
        call = Call.augment(texts, parameters, self._max_tries)
        return AugmentResponse.model_validate_json(await self._answer(call)).results

    async def candidates(self, texts: Sequence[TextOrPair], **parameters: Any) -> list[TextCandidateSets]:
        """Words and candidates of each text, in order. Raises ServiceError."""
        call = Call.candidates(texts, parameters, self._max_tries)
        return CandidatesResponse.model_validate_json(await self._answer(call)).results

    async def augment_stream(self, texts: Sequence[TextOrPair], **parameters: Any) -> AsyncIterator[TextSamples]:
        """Samples of many texts, in order, each as soon as it is ready. Raises ServiceError."""
        call = StreamCall.augment(texts, parameters, self._max_tries)
        while True:
            try:
                async with self._http.stream("POST", call.path, content=call.body) as response:
                    if response.status_code == 200:
                        async for chunk in response.aiter_bytes():
                            for one in call.results(chunk):
                                yield one
                        return
                    await response.aread()
                wait = call.wait_after_refusal(response)
            except httpx.TransportError as error:
                wait = call.wait_after_error(error)
            await asyncio.sleep(wait)

    async def is_ready(self) -> bool:
        """Whether the models are loaded and requests are accepted."""
        try:
            return (await self._http.get("/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _answer(self, call: Call) -> bytes:
        while True:
            try:
                response = await self._http.post(call.path, content=call.body)
                if response.status_code == 200:
                    return response.content
                wait = call.wait_after_refusal(response)
            except httpx.TransportError as error:
                wait = call.wait_after_error(error)
            await asyncio.sleep(wait)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
