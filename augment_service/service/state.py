"""State shared by the request handlers: the loaded models, why loading failed, and whether the service is draining."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from augment_service.service.augmenter import Augmenter
from augment_service.service.deadlines import Deadlines
from augment_service.service.info import ModelInfo
from augment_service.service.metrics import ServiceMetrics
from augment_service.service.models import Models
from shared.compute.memory import exempt_from_collection
from shared.errors import ExpectedError, ModelError

logger = logging.getLogger(__name__)

LoadModels = Callable[[ServiceMetrics], Awaitable[Models]]
LoadFailed = Callable[[str], None]


class State:
    """State of one application. Use from one event loop."""

    def __init__(self) -> None:
        self.augmenter: Augmenter | None = None
        self.failure = ""
        self.is_draining = False
        self.deadlines = Deadlines()
        self.on_load_failure: LoadFailed | None = None
        self.describe: Callable[[], dict[str, Any]] = dict

    def ready(self) -> Augmenter:
        """The augmenter. Raises ModelError while the models are loading or if loading failed."""
        if self.augmenter is None:
            raise ModelError(self.failure or "the models are still loading; try again in a moment")
        return self.augmenter

    def models_info(self) -> dict[str, ModelInfo] | None:
        """Facts of the models by kind; None until they are loaded."""
        return self.augmenter.models.info if self.augmenter is not None else None

    def drain(self) -> None:
        """Report `draining` from now on, so that a load balancer sends no more requests."""
        self.is_draining = True

    async def load(
        self, load_models: LoadModels, *, cache_bytes: int, max_tokens: int, metrics: ServiceMetrics
    ) -> None:
        """Load the models. A failure is logged, kept in `failure` for /readyz, and passed to `on_load_failure`."""
        try:
            models = await load_models(metrics)
            # Cached properties: computed here so that the first request does not wait for them.
            await asyncio.to_thread(lambda: (models.lexicon.vocabulary.is_whole_word, models.lexicon.splitter))
            augmenter = Augmenter(models, cache_bytes=cache_bytes, max_tokens=max_tokens, metrics=metrics)
            await asyncio.to_thread(exempt_from_collection)
            self.augmenter = augmenter
            metrics.show_models(models.info)
            metrics.ready.set(1)
            logger.info("ready")
        except ExpectedError as error:
            self.failure = str(error)
            logger.error("models_not_loaded", extra={"fields": {"error": str(error)}})
        except Exception as error:
            self.failure = f"the models could not be loaded ({type(error).__name__}); see the service's log"
            logger.exception("models_not_loaded")
        if self.failure and self.on_load_failure is not None:
            self.on_load_failure(self.failure)

    async def close(self) -> None:
        """Stop the threads of the models, if they were loaded."""
        if self.augmenter is not None:
            await self.augmenter.close()
