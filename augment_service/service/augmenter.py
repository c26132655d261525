"""One text of a request -> its samples or candidates, through the engine's steps, the cache and the shared models.

Short work runs on the event loop; what may take longer (long texts, many draws, sequential conditioning) on a small
pool of threads, so that no request holds up the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from augment_service.engine.conditioning import samples_steps
from augment_service.engine.proposer import Ask, Proposer, Steps, TextProposals
from augment_service.service.answers import candidates_answer
from augment_service.service.cache import ByteLru
from augment_service.service.metrics import ServiceMetrics
from augment_service.service.models import Models
from augment_service.service.requests import LimitError, as_columns
from shared.candidates import RowCandidates
from shared.inputs.rows import SourceRow
from shared.params import AugmentParams
from shared.rendering import render_rows
from shared.sampling import draw_samples

Found = TypeVar("Found")
MAX_DRAWN_WORDS = 200_000
"""Sites x N_a of one text: bounds the memory of its draws."""
_INLINE_CHARACTERS = 400
_LONG_TEXTS_AT_ONCE = 16
"""Long texts whose inputs are in memory at the same time, over all requests."""
_INLINE_DRAWN_WORDS = 2_000
_POOL_THREADS = 2


@dataclass(frozen=True, slots=True)
class _Entry:
    """Candidates of one text or pair: as proposed, and as the draws take them (source id 0)."""

    proposals: tuple[TextProposals, ...]
    row: RowCandidates


class Ticket:
    """A request's leave to use the models, asked for once: its later texts wait their turn instead of being refused."""

    def __init__(self, models: Models) -> None:
        self._models, self._is_admitted = models, False

    def use(self) -> None:
        """Raises OverloadError when too much waits already."""
        if not self._is_admitted:
            self._models.admit()
            self._is_admitted = True


class Augmenter:
    """Answers texts. Use from one event loop."""

    def __init__(self, models: Models, cache_bytes: int, max_tokens: int, metrics: ServiceMetrics) -> None:
        self.models, self._max_tokens, self._metrics = models, max_tokens, metrics
        self._cache: ByteLru[_Entry] = ByteLru(cache_bytes)
        self._pool = ThreadPoolExecutor(_POOL_THREADS, "augmenter")
        self._long_texts = asyncio.Semaphore(_LONG_TEXTS_AT_ONCE)
        metrics.watch_cache(self._cache)

    def ticket(self) -> Ticket:
        """One for each request."""
        return Ticket(self.models)

    async def samples(
        self, text: str | Sequence[str], source_id: int, params: AugmentParams, ticket: Ticket
    ) -> dict[str, Any]:
        """The samples of one text: {"id", "samples"}. Raises LimitError, OverloadError, ModelError."""
        columns = as_columns(text)
        if params.conditioning == "sequential":
            ticket.use()
            rows = [SourceRow(source_id, columns[0], columns[1] if len(columns) > 1 else None)]
            found, samples = await self._drive(samples_steps(Proposer(self.models.lexicon, params), rows), True)
            row = found[0]
        else:
            entry = await self._entry(columns, params, ticket)
            row = replace(entry.row, source_id=source_id)
            drawn = len(row.sites) * params.n_a
            if drawn > MAX_DRAWN_WORDS:
                raise LimitError(
                    f"{len(row.sites)} words that may be replaced x n_a {params.n_a} is more than {MAX_DRAWN_WORDS}; "
                    "ask for fewer samples or shorter texts", "/n_a",
                )  # fmt: skip
            samples = await self._call(drawn > _INLINE_DRAWN_WORDS, draw_samples, [row], params)
        self._metrics.samples.inc(len(samples))
        is_long = len(samples) * sum(map(len, columns)) > _INLINE_CHARACTERS * 20
        (rendered,) = await self._call(is_long, render_rows, [row], samples)
        return {"id": source_id, "samples": rendered}

    async def candidates(self, text: str | Sequence[str], params: AugmentParams, ticket: Ticket) -> dict[str, Any]:
        """Words and candidates of one text or pair. Raises LimitError, OverloadError, ModelError."""
        entry = await self._entry(as_columns(text), params, ticket)
        return candidates_answer(Proposer(self.models.lexicon, params), entry.proposals)

    async def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        await self.models.close()

    async def _entry(self, columns: Sequence[str], params: AugmentParams, ticket: Ticket) -> _Entry:
        key = (tuple(columns), params.k, params.context, params.words, params.text, params.filter)
        known = self._cache.get(key)
        self._metrics.cache_hit(known is not None)
        if known is not None:
            return known
        ticket.use()
        proposer = Proposer(self.models.lexicon, params)
        is_long = sum(map(len, columns)) > _INLINE_CHARACTERS
        proposals = await self._drive(proposer.propose_steps(list(columns)), is_long)
        texts = [proposer.text_candidates(one) for one in proposals]
        entry = _Entry(tuple(proposals), RowCandidates(0, texts[0], texts[1] if len(texts) > 1 else None))
        self._cache.put(key, entry, _size_of(entry))
        return entry

    async def _drive(self, steps: Steps[Found], is_long: bool) -> Found:
        if not is_long:
            return await self._run(steps, False)
        async with self._long_texts:
            return await self._run(steps, True)

    async def _run(self, steps: Steps[Found], in_pool: bool) -> Found:
        """Run steps to their end, asking the models. Raises LimitError when they ask for too many pieces."""
        tokens, answer = 0, None
        while True:
            ask = await self._call(in_pool, _advance, steps, answer)
            if not isinstance(ask, Ask):
                found: Found = ask.found
                return found
            tokens += sum(map(len, ask.inputs))
            if tokens > self._max_tokens:
                raise LimitError(
                    f"needs more than {self._max_tokens} model pieces; shorten the text, ask for fewer samples, or use "
                    "context unmasked", "/texts",
                )  # fmt: skip
            answer = await self.models.answer(ask)

    async def _call(self, in_pool: bool, function: Callable[..., Any], *arguments: Any) -> Any:
        if not in_pool:
            return function(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)


@dataclass(frozen=True, slots=True)
class _Done:
    found: Any


def _advance(steps: Steps[Any], answer: Any) -> Ask | _Done:
    # StopIteration cannot pass through a future, so the end is a value.
    try:
        return steps.send(answer)
    except StopIteration as end:
        return _Done(end.value)


def _size_of(entry: _Entry) -> int:
    """Bytes of an entry, roughly and rather too many: every string and number as an object of its own."""
    candidates = sum(len(word) + 130 for site in entry.row.sites for word in site.candidates)
    words = sum(320 + 36 * len(word.piece_ids) + len(word.text) for one in entry.proposals for word in one.words)
    return 1_000 + candidates + words + 400 * len(entry.row.sites) + 8 * sum(len(one.text) for one in entry.proposals)
