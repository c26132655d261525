"""The models behind the service: in this process, each on its own thread, shared by all requests."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from augment_service.config import ServeConfig
from augment_service.engine.batch_size import resolve_batch_tokens, tokens_per_second
from augment_service.engine.batches import ModelInput, plan_batches
from augment_service.engine.glove import GloveVectors
from augment_service.engine.lexicon import Lexicon
from augment_service.engine.masked_lm import MaskedLM
from augment_service.engine.proposer import Answer, Ask
from augment_service.service.batcher import PassBatcher, PassReport, ignore_report
from augment_service.service.info import ModelInfo
from augment_service.service.neighbours import BLOCK_WORDS, NeighbourBatcher

logger = logging.getLogger(__name__)

WARM_UP_LENGTHS = (3, 9, 17, 40, 64)
WARM_UP_RANKED = 16


class Models(Protocol):
    """Answers the engine's model queries: in this process, or through Ray Serve deployments."""

    lexicon: Lexicon
    info: dict[str, ModelInfo]

    async def answer(self, ask: Ask) -> Answer:
        """Raises OverloadError, ModelError, ClusterError."""
        ...

    async def admit(self) -> None:
        """Raises OverloadError when a new request would wait too long."""
        ...

    async def close(self) -> None:
        """Stop the threads."""
        ...


class LocalModels:
    """A masked LM and word vectors in this process."""

    def __init__(self, batcher: PassBatcher, neighbours: NeighbourBatcher, info: dict[str, ModelInfo]) -> None:
        self.info = info
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

    async def admit(self) -> None:
        """Raises OverloadError when one of the queues is too long. Never blocks."""
        self.batcher.admit()
        self.neighbours.admit()

    async def close(self) -> None:
        """Stop the threads."""
        await self.batcher.close()
        await self.neighbours.close()


def load_batcher(config: ServeConfig, report: Callable[[PassReport], None] = ignore_report) -> PassBatcher:
    """The masked LM, warmed up, behind its batcher. `report` is called after every pass. Raises ModelError."""
    masked_lm = MaskedLM.load(config.mlm, config.device, config.dtype, config.threads)
    batch_tokens = resolve_batch_tokens(config.batch_tokens, masked_lm)
    is_invariant = is_batch_invariant(masked_lm, batch_tokens)
    rate = tokens_per_second(masked_lm, batch_tokens, rounds=1)
    fields = {"mlm": config.mlm, "device": masked_lm.device, "dtype": str(masked_lm.dtype).removeprefix("torch.")}
    fields["tokens_per_second"] = str(round(rate))
    logger.info("masked_lm_loaded", extra={"fields": fields | {"batch_invariant": is_invariant}})
    if not is_invariant:
        logger.warning("requests_share_no_pass: on this machine results depend on what else is in the batch")
    return PassBatcher(
        masked_lm=masked_lm,
        batch_tokens=batch_tokens,
        max_wait_seconds=config.max_wait_ms / 1000,
        queue_seconds=config.queue_seconds,
        shares_passes=is_invariant,
        report=report,
        tokens_per_second=rate,
    )


def load_neighbours(config: ServeConfig) -> NeighbourBatcher:
    """The word vectors, warmed up, behind their batcher. Raises ModelError."""
    vectors = GloveVectors.load(config.glove, config.glove_limit)
    words_per_second = _words_per_second(vectors)
    fields = {"glove": config.glove, "words": len(vectors.words), "words_per_second": str(round(words_per_second))}
    logger.info("vectors_loaded", extra={"fields": fields})
    return NeighbourBatcher(vectors=vectors, queue_seconds=config.queue_seconds, words_per_second=words_per_second)


def is_batch_invariant(masked_lm: MaskedLM, batch_tokens: int) -> bool:
    """Whether random inputs give the same bits alone and in a batch. Also warms up the model."""
    rng = np.random.default_rng(0)
    lexicon = masked_lm.lexicon
    inputs = []
    for length in (*WARM_UP_LENGTHS, *WARM_UP_LENGTHS, *WARM_UP_LENGTHS):
        length = min(length, masked_lm.max_length)
        ids = rng.integers(1, masked_lm.vocab_size, length - 2).tolist()
        inputs.append(ModelInput((lexicon.cls_id, *ids, lexicon.sep_id), (length // 2,), length))
    return _bits(masked_lm, inputs, batch_tokens) == _bits(masked_lm, inputs, 1)


def _words_per_second(vectors: GloveVectors) -> float:
    """Throughput on a block of rare words, sized as in a real lookup; the block before it reads the file."""
    words = [str(word) for word in vectors.words[-2 * BLOCK_WORDS :]]
    vectors.nearest(words[:BLOCK_WORDS], WARM_UP_RANKED)
    timed = words[BLOCK_WORDS:] or words
    began = time.monotonic()
    vectors.nearest(timed, WARM_UP_RANKED + 1)
    return len(timed) / max(time.monotonic() - began, 1e-6)


def _bits(masked_lm: MaskedLM, inputs: Sequence[ModelInput], batch_tokens: int) -> list[bytes]:
    plan = plan_batches(inputs, batch_tokens)
    found = masked_lm.rank(plan.unique, plan.batches, WARM_UP_RANKED, None)
    return [found[index].ids.tobytes() + found[index].scores.tobytes() for index in plan.index_of]
