"""Loading the models of a server: permanent errors fail at once, transient ones are retried a few times."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from augment_service.config import ServeConfig
from augment_service.engine.glove import GloveVectors
from augment_service.engine.presence import check_models_exist
from augment_service.service.info import of_masked_lm, of_vectors
from augment_service.service.metrics import PassMetrics, ServiceMetrics, WordMetrics
from augment_service.service.models import LocalModels, load_batcher, load_neighbours
from shared.embedded import EMBEDDED
from shared.errors import ModelError

logger = logging.getLogger(__name__)

Loaded = TypeVar("Loaded")
LOAD_TRIES = 4
FIRST_WAIT_SECONDS = 1.0


def check_paths(config: ServeConfig) -> None:
    """Raises ModelError when a model is given as a path that does not exist. A hub id is only checked when loaded."""
    check_models_exist(config.mlm, config.glove)


def is_path(name: str) -> bool:
    """Whether a model's name must be a path: a hub id is NAME or OWNER/NAME."""
    return name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1 or "\\" in name


async def load_local_models(config: ServeConfig, metrics: ServiceMetrics) -> LocalModels:
    """Masked LM and vectors, loaded in parallel on two threads. Raises ModelError."""
    passes = PassMetrics(metrics.registry)
    batcher, neighbours = await asyncio.gather(
        with_retries(lambda: load_batcher(config, passes.passed), config.mlm),
        asyncio.to_thread(load_neighbours, config),
    )
    vectors = neighbours.vectors
    assert isinstance(vectors, GloveVectors)
    mlm_info = await asyncio.to_thread(of_masked_lm, config, batcher.masked_lm, batcher.batch_tokens)
    passes.watch(batcher)
    WordMetrics(metrics.registry).watch(neighbours)
    return LocalModels(batcher, neighbours, {"mlm": mlm_info, "glove": of_vectors(config, vectors)})


async def with_retries(load: Callable[[], Loaded], mlm: str) -> Loaded:
    """The result of `load`, run on a thread. Hub errors are retried; a local model fails at once."""
    for tried in range(1, LOAD_TRIES):
        try:
            return await asyncio.to_thread(load)
        except ModelError as error:
            is_from_hub = mlm != EMBEDDED and not is_path(mlm) and not Path(mlm).exists()
            if not is_from_hub or not isinstance(error.__cause__, OSError):
                raise
            wait = FIRST_WAIT_SECONDS * 2 ** (tried - 1)
            logger.warning("model_not_loaded_yet", extra={"fields": {"error": str(error), "wait_seconds": wait}})
            await asyncio.sleep(wait)
    return await asyncio.to_thread(load)
