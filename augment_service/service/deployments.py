"""The service on Ray Serve: masked LM and vectors as deployments of their own, the application as their ingress.

`serve run deploy/serve/serve.yaml` starts it; `build` takes the options of `augment_service serve` that matter here.
Replicas come and go: a question that a dying replica did not answer is asked again, which changes nothing, since
answers are pure functions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from augment_service.config import ServeConfig
from augment_service.engine.batches import ModelInput, Ranking
from augment_service.engine.lexicon import Lexicon
from augment_service.engine.proposer import Answer, Ask, Nearest
from augment_service.service.access import Access, read_tokens
from augment_service.service.app import create_app
from augment_service.service.metrics import ServiceMetrics
from augment_service.service.middleware import MiddlewareSettings
from augment_service.service.models import Models, NeighbourBatcher, load_batcher, load_vectors
from augment_service.service.server import limits_of
from shared.cli.logs import configure_logs
from shared.compute.memory import keep_freed_memory
from shared.errors import ClusterError, ExpectedError, OverloadError

TRIES = 5
FIRST_WAIT_SECONDS = 0.2
_PASSES_PER_CALL = 4
"""A text's inputs go to the masked LM in calls of this many passes, so that several replicas share a long one."""


@serve.deployment(max_ongoing_requests=256, max_queued_requests=512, health_check_period_s=5)
class MaskedLM:
    """A replica of the masked LM; requests that reach it share its passes."""

    def __init__(self, config: ServeConfig) -> None:
        configure_logs(config.log_format, config.log_level)
        keep_freed_memory()
        self._batcher = load_batcher(config, config.threads, config.max_wait_ms, config.queue_seconds)

    async def lexicon(self) -> Lexicon:
        """What the ingress must know of the model."""
        lexicon = self._batcher.masked_lm.lexicon
        return Lexicon(lexicon.tokenizer, lexicon.cls_id, lexicon.sep_id, lexicon.mask_id, lexicon.max_length)

    async def rank(self, inputs: Sequence[ModelInput], num_ranked: int, whole_words: bool) -> list[Ranking]:
        """One Ranking per input. Raises OverloadError."""
        self._batcher.admit()
        return await self._batcher.rank(inputs, num_ranked, whole_words)


@serve.deployment(max_ongoing_requests=256, max_queued_requests=512, health_check_period_s=5)
class Glove:
    """A replica of the word vectors; replicas of one node share their memory."""

    def __init__(self, config: ServeConfig) -> None:
        configure_logs(config.log_format, config.log_level)
        self._vectors = NeighbourBatcher(load_vectors(config))

    async def nearest(self, words: tuple[str, ...], k: int) -> Nearest:
        """Per word its K nearest (word, cosine)."""
        return await self._vectors.nearest(words, k)


@serve.deployment(max_ongoing_requests=512, health_check_period_s=5)
@serve.ingress()
class Ingress:
    """A replica of the application; holds no model."""

    def __init__(self, config: ServeConfig, masked_lm: DeploymentHandle, glove: DeploymentHandle) -> None:
        configure_logs(config.log_format, config.log_level)
        self._config, self._masked_lm, self._glove = config, masked_lm, glove

    def __serve_build_asgi_app__(self) -> FastAPI:
        config = self._config

        async def load(_: ServiceMetrics) -> Models:
            return RemoteModels(
                await _ask(lambda: self._masked_lm.lexicon.remote()), self._masked_lm, self._glove, config.batch_tokens
            )

        settings = MiddlewareSettings(config.max_requests, config.request_seconds)
        return create_app(load, limits_of(config), Access(read_tokens(config.token_file)), settings, config.cache_bytes)


class RemoteModels:
    """Models that are deployments of the same application."""

    def __init__(
        self, lexicon: Lexicon, masked_lm: DeploymentHandle, glove: DeploymentHandle, batch_tokens: int
    ) -> None:
        self.lexicon, self._masked_lm, self._glove = lexicon, masked_lm, glove
        self._call_tokens = batch_tokens * _PASSES_PER_CALL

    async def answer(self, ask: Ask) -> Answer:
        """Answers both parts of an ask at once. Raises OverloadError, ClusterError."""
        parts = [self._rank(part, ask) for part in split_inputs(ask.inputs, self._call_tokens)]
        nearest = self._nearest(ask) if ask.words else _nothing()
        *rankings, found = await asyncio.gather(*parts, nearest)
        return Answer([one for part in rankings for one in part], found)

    def admit(self) -> None:
        """Each replica of the masked LM admits for itself."""

    async def close(self) -> None:
        """Serve ends the deployments."""

    async def _rank(self, inputs: Sequence[ModelInput], ask: Ask) -> Any:
        return await _ask(lambda: self._masked_lm.rank.remote(inputs, ask.num_ranked, ask.whole_words))

    async def _nearest(self, ask: Ask) -> Any:
        return await _ask(lambda: self._glove.nearest.remote(ask.words, ask.num_nearest))


def build(args: dict[str, Any]) -> serve.Application:
    """The application of a Serve configuration; `args`: options of `augment_service serve`, as `mlm: embedded`."""
    config = ServeConfig.build(args)
    read_tokens(config.token_file)
    # What the decorators made of the classes has no type that says so.
    ingress, masked_lm, glove = (_deployment(one) for one in (Ingress, MaskedLM, Glove))
    return ingress.bind(config, masked_lm.bind(config), glove.bind(config))


def _deployment(decorated: Any) -> serve.Deployment:
    assert isinstance(decorated, serve.Deployment)
    return decorated


def split_inputs(inputs: Sequence[ModelInput], max_tokens: int) -> list[Sequence[ModelInput]]:
    """Consecutive parts of at most `max_tokens` pieces, or of one input that is longer."""
    parts: list[Sequence[ModelInput]] = []
    first, tokens = 0, 0
    for place, one in enumerate(inputs):
        if place > first and tokens + len(one) > max_tokens:
            parts.append(inputs[first:place])
            first, tokens = place, 0
        tokens += len(one)
    return [*parts, inputs[first:]] if inputs else parts


async def _nothing() -> Nearest:
    return {}


async def _ask(call: Any) -> Any:
    """The result of a call of a deployment. Raises OverloadError, ClusterError and what the replica raised."""
    for tried in range(1, TRIES + 1):
        try:
            return await call()
        except BackPressureError as error:
            raise OverloadError("the models have more to do than they can; try again later", 2.0) from error
        except RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            if isinstance(cause, ExpectedError) or not isinstance(cause, RayActorError):
                raise cause from error
            lost: Exception = error
        except (RayActorError, DeploymentUnavailableError) as error:
            lost = error
        if tried < TRIES:
            await asyncio.sleep(FIRST_WAIT_SECONDS * 2 ** (tried - 1))
    raise ClusterError(f"a model replica was lost {TRIES} times: {type(lost).__name__}") from lost
