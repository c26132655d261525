"""The models behind the service: in this process, each on its own thread, shared by all requests."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from augment_service.config import ModelChoice, ServeConfig
from augment_service.engine.batches import ModelInput, plan_batches
from augment_service.engine.glove import GloveVectors
from augment_service.engine.lexicon import Lexicon
from augment_service.engine.masked_lm import MaskedLM
from augment_service.engine.proposer import Answer, Ask, Nearest, Neighbours
from augment_service.service.batcher import PassBatcher, PassReport, ignore_report

logger = logging.getLogger(__name__)

WARM_UP_LENGTHS = (3, 9, 17, 40, 64)
WARM_UP_RANKED = 16


class Models(Protocol):
    """Answers what the engine asks of the models: in this process, or through Ray Serve deployments."""

    lexicon: Lexicon

    async def answer(self, ask: Ask) -> Answer:
        """Raises OverloadError, ModelError, ClusterError."""
        ...

    def admit(self) -> None:
        """Raises OverloadError when a new request would wait too long."""
        ...

    async def close(self) -> None:
        """Stop the threads."""
        ...


class NeighbourBatcher:
    """Looks up the words of many requests in one matrix product at a time. Use from one event loop."""

    def __init__(self, vectors: Neighbours) -> None:
        self._vectors = vectors
        self._thread = ThreadPoolExecutor(1, "vectors")
        self._waiting: list[tuple[tuple[str, ...], int, asyncio.Future[Nearest]]] = []
        self._task: asyncio.Task[None] | None = None

    async def nearest(self, words: tuple[str, ...], k: int) -> Nearest:
        """Per word its K nearest (word, cosine)."""
        if not words:
            return {}
        found: asyncio.Future[Nearest] = asyncio.get_running_loop().create_future()
        self._waiting.append((words, k, found))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="neighbours")
        return await found

    async def close(self) -> None:
        """Stop, and cancel the requests that are still waiting."""
        if self._task is not None:
            self._task.cancel()
        for _, _, found in self._waiting:
            found.cancel()
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _run(self) -> None:
        while self._waiting:
            # One K at a time, so that a word's neighbours never depend on other requests.
            k = self._waiting[0][1]
            group = [one for one in self._waiting if one[1] == k and not one[2].done()]
            self._waiting = [one for one in self._waiting if one[1] != k]
            words = list(dict.fromkeys(word for one in group for word in one[0]))
            try:
                nearest = await asyncio.get_running_loop().run_in_executor(
                    self._thread, self._vectors.nearest, words, k
                )
            except Exception as error:
                for _, _, found in group:
                    if not found.done():
                        found.set_exception(error)
                continue
            for mine, _, found in group:
                if not found.done():
                    found.set_result({word: nearest[word] for word in mine})


class LocalModels:
    """A masked LM and word vectors in this process."""

    def __init__(self, batcher: PassBatcher, neighbours: NeighbourBatcher) -> None:
        self.batcher, self.neighbours = batcher, neighbours
        self.lexicon = batcher.masked_lm.lexicon

    async def answer(self, ask: Ask) -> Answer:
        """Rankings and neighbours, computed concurrently."""
        if not ask.words:
            return Answer(await self.batcher.rank(ask.inputs, ask.num_ranked, ask.whole_words), {})
        rankings, nearest = await asyncio.gather(
            self.batcher.rank(ask.inputs, ask.num_ranked, ask.whole_words),
            self.neighbours.nearest(ask.words, ask.num_nearest),
        )
        return Answer(rankings, nearest)

    def admit(self) -> None:
        """Raises OverloadError when the queue is too long."""
        self.batcher.admit()

    async def close(self) -> None:
        """Stop the threads."""
        await self.batcher.close()
        await self.neighbours.close()


def load_batcher(config: ServeConfig, report: Callable[[PassReport], None] = ignore_report) -> PassBatcher:
    """The masked LM, warmed up, behind its batcher. `report` is called after every pass. Raises ModelError."""
    masked_lm = MaskedLM.load(config.mlm, config.device, config.dtype, config.threads)
    is_invariant = is_batch_invariant(masked_lm, config.batch_tokens)
    tokens_per_second = _tokens_per_second(masked_lm, config.batch_tokens)
    fields = {"mlm": config.mlm, "device": masked_lm.device, "dtype": str(masked_lm.dtype).removeprefix("torch.")}
    fields["tokens_per_second"] = str(round(tokens_per_second))
    logger.info("masked_lm_loaded", extra={"fields": fields | {"batch_invariant": is_invariant}})
    if not is_invariant:
        logger.warning("requests_share_no_pass: on this machine results depend on what else is in the batch")
    return PassBatcher(
        masked_lm=masked_lm,
        batch_tokens=config.batch_tokens,
        max_wait_seconds=config.max_wait_ms / 1000,
        queue_seconds=config.queue_seconds,
        shares_passes=is_invariant,
        report=report,
        tokens_per_second=tokens_per_second,
    )


def load_vectors(choice: ModelChoice) -> GloveVectors:
    """The word vectors. Raises ModelError."""
    vectors = GloveVectors.load(choice.glove, choice.glove_limit)
    logger.info("vectors_loaded", extra={"fields": {"glove": choice.glove, "words": len(vectors.words)}})
    return vectors


def is_batch_invariant(masked_lm: MaskedLM, batch_tokens: int) -> bool:
    """Whether inputs give the same bits alone and in a batch, tried on random ones. It also warms the model up."""
    rng = np.random.default_rng(0)
    lexicon = masked_lm.lexicon
    inputs = []
    for length in (*WARM_UP_LENGTHS, *WARM_UP_LENGTHS, *WARM_UP_LENGTHS):
        length = min(length, masked_lm.max_length)
        ids = rng.integers(1, masked_lm.vocab_size, length - 2).tolist()
        inputs.append(ModelInput((lexicon.cls_id, *ids, lexicon.sep_id), (length // 2,), length))
    return _bits(masked_lm, inputs, batch_tokens) == _bits(masked_lm, inputs, 1)


def _tokens_per_second(masked_lm: MaskedLM, batch_tokens: int) -> float:
    length = min(32, masked_lm.max_length)
    inputs = [ModelInput((masked_lm.lexicon.mask_id,) * length, (1,), length)] * max(batch_tokens // length, 1)
    began = time.monotonic()
    masked_lm.rank(inputs, [range(len(inputs))], WARM_UP_RANKED, None)
    return length * len(inputs) / max(time.monotonic() - began, 1e-6)


def _bits(masked_lm: MaskedLM, inputs: Sequence[ModelInput], batch_tokens: int) -> list[bytes]:
    plan = plan_batches(inputs, batch_tokens)
    found = masked_lm.rank(plan.unique, plan.batches, WARM_UP_RANKED, None)
    return [found[index].ids.tobytes() + found[index].scores.tobytes() for index in plan.index_of]
