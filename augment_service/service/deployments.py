"""The service on Ray Serve: masked LM and vectors as separate deployments, the application as their ingress.

`serve run deploy/serve/serve.yaml` starts it. `build` takes the options of `augment_service serve` that apply here, as
arguments or from AUGMENT_SERVICE_* in the environment of the cluster.
Replicas may die: an unanswered call is retried on another replica, which is safe because calls are idempotent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from ray import serve
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from augment_service.config import ServeConfig
from augment_service.engine.batches import ModelInput, Ranking
from augment_service.engine.glove import GloveVectors
from augment_service.engine.lexicon import Lexicon
from augment_service.engine.proposer import Answer, Ask, Nearest
from augment_service.service.access import Access
from augment_service.service.app import AppSettings, create_app
from augment_service.service.environment import log_unknown_variables
from augment_service.service.info import ModelInfo, of_masked_lm, of_vectors
from augment_service.service.metrics import PassMetrics, ServiceMetrics, WordMetrics
from augment_service.service.models import Models, load_batcher, load_neighbours
from augment_service.service.ray_export import RayExport
from augment_service.service.tokens import read_tokens
from shared.cli.logs import configure_logs
from shared.cli.values import over_environment
from shared.compute.memory import exempt_from_collection, keep_freed_memory
from shared.errors import ClusterError, ExpectedError, OverloadError

TRIES = 5
FIRST_WAIT_SECONDS = 0.2
_PASSES_PER_CALL = 4
"""A text's inputs are sent to the masked LM in calls of this many passes, which spreads a long text over replicas."""


@serve.deployment(max_ongoing_requests=256, max_queued_requests=512, health_check_period_s=5)
class MaskedLM:
    """A replica of the masked LM. Requests that reach the same replica share its passes."""

    def __init__(self, config: ServeConfig) -> None:
        configure_logs(config.log_format, config.log_level)
        keep_freed_memory()
        metrics = PassMetrics(CollectorRegistry())
        self._config, self._batcher = config, load_batcher(config, metrics.passed)
        metrics.watch(self._batcher)
        RayExport(metrics.registry).start()
        exempt_from_collection()

    async def lexicon(self) -> Lexicon:
        """The lexicon, which is all that the ingress needs of the model."""
        lexicon = self._batcher.masked_lm.lexicon
        return Lexicon(lexicon.tokenizer, lexicon.cls_id, lexicon.sep_id, lexicon.mask_id, lexicon.max_length)

    async def info(self) -> ModelInfo:
        """Facts of the model, for /info."""
        return await asyncio.to_thread(of_masked_lm, self._config, self._batcher.masked_lm, self._batcher.batch_tokens)

    async def admit(self) -> None:
        """Raises OverloadError when this replica's queue is too long."""
        self._batcher.admit()

    async def rank(self, inputs: Sequence[ModelInput], num_ranked: int, whole_words: bool) -> list[Ranking]:
        """One Ranking per input. An admitted request is never refused here, whatever has arrived since."""
        return await self._batcher.rank(inputs, num_ranked, whole_words)


@serve.deployment(max_ongoing_requests=256, max_queued_requests=512, health_check_period_s=5)
class Glove:
    """A replica of the word vectors. Replicas on the same node share memory."""

    def __init__(self, config: ServeConfig) -> None:
        configure_logs(config.log_format, config.log_level)
        self._config, self._neighbours = config, load_neighbours(config)
        metrics = WordMetrics(CollectorRegistry())
        metrics.watch(self._neighbours)
        RayExport(metrics.registry).start()
        exempt_from_collection()

    async def info(self) -> ModelInfo:
        """Facts of the vectors, for /info."""
        vectors = self._neighbours.vectors
        assert isinstance(vectors, GloveVectors)
        return of_vectors(self._config, vectors)

    async def admit(self) -> None:
        """Raises OverloadError when this replica's queue is too long."""
        self._neighbours.admit()

    async def nearest(self, words: tuple[str, ...], k: int) -> Nearest:
        """The K nearest (word, cosine) of each word."""
        return await self._neighbours.nearest(words, k)


@serve.deployment(max_ongoing_requests=512, health_check_period_s=5)
@serve.ingress()
class Ingress:
    """A replica of the application; it holds no model."""

    def __init__(self, config: ServeConfig, masked_lm: DeploymentHandle, glove: DeploymentHandle) -> None:
        configure_logs(config.log_format, config.log_level)
        log_unknown_variables()
        self._config, self._masked_lm, self._glove = config, masked_lm, glove

    def __serve_build_asgi_app__(self) -> FastAPI:
        config = self._config

        async def load(_: ServiceMetrics) -> Models:
            lexicon = await _ask(lambda: self._masked_lm.lexicon.remote())
            model: ModelInfo = await _ask(lambda: self._masked_lm.info.remote())
            models = RemoteModels(lexicon, self._masked_lm, self._glove, int(model.details["batch_tokens"]))
            models.info["mlm"] = model
            models.info["glove"] = await _ask(lambda: self._glove.info.remote())
            return models

        access = Access(read_tokens(config.token_file))
        # The address that Ray's proxy listens on is unknown here, so the Host header decides. The proxy adds a request
        # id to both the response and the request, where the application finds it.
        only_loopback = not access.needs_token and not config.allow_without_token
        settings = AppSettings.of(config, access, only_loopback_hosts=only_loopback, sends_request_id=False)
        app = create_app(load, settings)
        RayExport(app.state.metrics.registry).start()
        return app


class RemoteModels:
    """Models in other deployments of the same Serve application."""

    def __init__(
        self, lexicon: Lexicon, masked_lm: DeploymentHandle, glove: DeploymentHandle, batch_tokens: int
    ) -> None:
        self.info: dict[str, ModelInfo] = {}
        self.lexicon, self._masked_lm, self._glove = lexicon, masked_lm, glove
        self._call_tokens = batch_tokens * _PASSES_PER_CALL

    async def answer(self, ask: Ask) -> Answer:
        """Rankings and neighbours, computed concurrently. Raises OverloadError, ClusterError."""
        parts = [self._rank(part, ask) for part in split_inputs(ask.inputs, self._call_tokens)]
        nearest = self._nearest(ask) if ask.words else _nothing()
        *rankings, found = await asyncio.gather(*parts, nearest)
        return Answer([one for part in rankings for one in part], found)

    async def admit(self) -> None:
        """Check admission at one replica of each model; Ray Serve's router picks one with a short queue of calls.

        Called once per request, so that its later texts are not refused halfway. Raises OverloadError, ClusterError.
        """
        await asyncio.gather(_ask(lambda: self._masked_lm.admit.remote()), _ask(lambda: self._glove.admit.remote()))

    async def close(self) -> None:
        """Does nothing: Ray Serve stops the deployments."""

    async def _rank(self, inputs: Sequence[ModelInput], ask: Ask) -> Any:
        return await _ask(lambda: self._masked_lm.rank.remote(inputs, ask.num_ranked, ask.whole_words))

    async def _nearest(self, ask: Ask) -> Any:
        return await _ask(lambda: self._glove.nearest.remote(ask.words, ask.num_nearest))


def build(args: dict[str, Any]) -> serve.Application:
    """The application of a Serve configuration. `args`: options of `augment_service serve`, such as `mlm: embedded`."""
    config = over_environment(ServeConfig, args, {})
    read_tokens(config.token_file)
    # The decorators turn the classes into deployments, which their types do not show.
    ingress, masked_lm, glove = (_deployment(one) for one in (Ingress, MaskedLM, Glove))
    # A replica drains its requests before Serve stops it. Models are needed until the last request is answered.
    ingress = ingress.options(graceful_shutdown_timeout_s=config.drain_seconds)
    return ingress.bind(config, masked_lm.bind(config), glove.bind(config))


def _deployment(decorated: Any) -> serve.Deployment:
    assert isinstance(decorated, serve.Deployment)
    return decorated


def split_inputs(inputs: Sequence[ModelInput], max_tokens: int) -> list[Sequence[ModelInput]]:
    """Consecutive parts of at most `max_tokens` tokens each; a longer input becomes a part by itself."""
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
    """The result of a deployment call. Raises OverloadError, ClusterError, and whatever the replica raised."""
    for tried in range(1, TRIES + 1):
        try:
            return await call()
        except BackPressureError as error:
            lost: Exception = error
        except RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            if isinstance(cause, ExpectedError) or not isinstance(cause, RayActorError):
                raise cause from error
            lost = error
        except (RayActorError, DeploymentUnavailableError) as error:
            lost = error
        if tried < TRIES:
            await asyncio.sleep(FIRST_WAIT_SECONDS * 2 ** (tried - 1))
    if isinstance(lost, BackPressureError):
        raise OverloadError("the models are overloaded; try again later", 2.0) from lost
    raise ClusterError(f"a model replica was lost {TRIES} times: {type(lost).__name__}") from lost
