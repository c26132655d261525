"""One text of a request -> its samples or candidates, through the engine's steps, the cache and the shared models.

Short work runs on the event loop. Work that may take longer (long texts, many draws, many candidates, sequential
conditioning) runs on one thread, so that it does not block the event loop. A second thread would add no throughput,
because both need Python's global lock, and it would double the time that the event loop waits for the lock. Instead,
long answers are written in turns of a few milliseconds, so that other work does not wait for them. Answers are returned
as JSON bytes: as objects they take several times the memory, so only a few texts exist as objects at any time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from augment_service.engine.conditioning import samples_steps
from augment_service.engine.proposer import Answer, Ask, Proposer, Steps, TextProposals
from augment_service.service.answers import candidates_json, samples_json
from augment_service.service.cache import ByteLru
from augment_service.service.limits import LimitError
from augment_service.service.metrics import ServiceMetrics
from augment_service.service.models import Models
from augment_service.service.requests import as_columns
from shared.candidates import RowCandidates, Samples
from shared.choices import ChoiceTable
from shared.inputs.rows import SourceRow
from shared.params import AugmentParams
from shared.sampling import draw_samples

Found = TypeVar("Found")
MAX_DRAWN_WORDS = 200_000
"""Limit of replaceable words x N_a for one text; bounds the memory of its draws."""
_INLINE_CHARACTERS = 400
"""Texts up to this length are handled on the event loop."""
_INLINE_DRAWN_WORDS = 2_000
_INLINE_ANSWER_CHARACTERS = 20 * _INLINE_CHARACTERS
_INLINE_CANDIDATES = 20_000
"""Limit of characters x K for work on the event loop; a word has about five characters."""
_TURN_SECONDS = 0.004
"""After this time, writing an answer lets other work have the thread."""
_MEDIUM_SIZE = 10
"""Size of a medium answer, in multiples of the limits for work on the event loop. Longer ones do not hold it up."""
_MEDIUM_ANSWERS_AT_ONCE, _LONG_ANSWERS_AT_ONCE = 16, 2
"""Limits, over all requests, of answers that are being written."""
_LONG_TEXTS_AT_ONCE = 16
"""Limit, over all requests, of long texts whose model inputs are in memory at the same time."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """Cached candidates of one text or pair: as proposed, and in the form used for draws (source id 0)."""

    proposals: tuple[TextProposals, ...]
    row: RowCandidates
    table: ChoiceTable
    num_sites: int
    num_bytes: int


class Ticket:
    """Admits a request to the models once: its later texts are queued, never refused."""

    def __init__(self, models: Models) -> None:
        self._models, self._is_admitted, self._lock = models, False, asyncio.Lock()

    async def use(self) -> None:
        """Raises OverloadError when the queue is too long and the request was not admitted before."""
        if self._is_admitted:
            return
        # The texts of a request arrive here together; the first one requests admission for all of them.
        async with self._lock:
            if not self._is_admitted:
                await self._models.admit()
                self._is_admitted = True


class Augmenter:
    """Computes samples and candidates of single texts. Use from one event loop.

    max_tokens: limit of model tokens per text. cache_bytes: size of the candidate cache.
    """

    def __init__(self, models: Models, *, cache_bytes: int, max_tokens: int, metrics: ServiceMetrics) -> None:
        self.models, self._max_tokens, self._metrics = models, max_tokens, metrics
        self._cache: ByteLru[_Entry] = ByteLru(cache_bytes)
        self._thread = ThreadPoolExecutor(1, "augmenter")
        self._long_texts = asyncio.Semaphore(_LONG_TEXTS_AT_ONCE)
        self._medium_answers = asyncio.Semaphore(_MEDIUM_ANSWERS_AT_ONCE)
        self._long_answers = asyncio.Semaphore(_LONG_ANSWERS_AT_ONCE)
        metrics.watch_cache(self._cache)

    def ticket(self) -> Ticket:
        """A new ticket; one per request, shared by all of its texts."""
        return Ticket(self.models)

    async def samples(self, text: str | Sequence[str], source_id: int, params: AugmentParams, ticket: Ticket) -> bytes:
        """The samples of one text as JSON: {"id", "samples"}. Raises LimitError, OverloadError, ModelError."""
        columns = as_columns(text)
        num_characters = params.n_a * sum(map(len, columns))
        if params.conditioning == "sequential":
            row, samples = await self._sequential_samples(columns, source_id, params, ticket)
            self._metrics.samples.inc(len(samples))
            async with self._room_for(num_characters / _INLINE_ANSWER_CHARACTERS):
                return await self._written(samples_json(row, samples))
        entry = await self._entry(columns, params, ticket)
        num_drawn = entry.num_sites * params.n_a
        if num_drawn > MAX_DRAWN_WORDS:
            raise LimitError(
                f"{entry.num_sites} replaceable words x n_a {params.n_a} is more than the limit of {MAX_DRAWN_WORDS}; "
                "ask for fewer samples or shorten the text",
                "/n_a",
            )
        row = replace(entry.row, source_id=source_id)
        size = max(num_drawn / _INLINE_DRAWN_WORDS, num_characters / _INLINE_ANSWER_CHARACTERS)
        if size <= 1:
            samples = _draw(row, entry.table, params)
            answer = b"".join(samples_json(row, samples))
        else:
            async with self._room_for(size):
                samples = await self._threaded(_draw, row, entry.table, params)
                answer = await self._written(samples_json(row, samples))
        self._metrics.samples.inc(len(samples))
        return answer

    async def candidates(self, text: str | Sequence[str], params: AugmentParams, ticket: Ticket) -> bytes:
        """Words and candidates of one text or pair, as JSON. Raises LimitError, OverloadError, ModelError."""
        columns = as_columns(text)
        entry = await self._entry(columns, params, ticket)
        proposer = Proposer(self.models.lexicon, params)
        parts = candidates_json(proposer, entry.proposals)
        size = sum(map(len, columns)) * params.k / _INLINE_CANDIDATES
        if size <= 1:
            return b"".join(parts)
        async with self._room_for(size):
            return await self._written(parts)

    async def close(self) -> None:
        """Stop the threads."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        await self.models.close()

    async def _sequential_samples(
        self, columns: Sequence[str], source_id: int, params: AugmentParams, ticket: Ticket
    ) -> tuple[RowCandidates, Samples]:
        await ticket.use()
        rows = [SourceRow(source_id, columns[0], columns[1] if len(columns) > 1 else None)]
        found, samples = await self._drive(samples_steps(Proposer(self.models.lexicon, params), rows), is_long=True)
        return found[0], samples

    async def _entry(self, columns: Sequence[str], params: AugmentParams, ticket: Ticket) -> _Entry:
        """Candidates of one text or pair, from the cache or the models."""
        form = (params.text, params.case, params.protect)
        key = (tuple(columns), params.k, params.context, params.words, params.filter, form)
        known = self._cache.get(key)
        self._metrics.cache_hit(known is not None)
        if known is not None:
            return known
        await ticket.use()
        proposer = Proposer(self.models.lexicon, params)
        is_long = sum(map(len, columns)) > _INLINE_CHARACTERS
        proposals = await self._drive(proposer.propose_steps(list(columns), protects=True), is_long)
        entry = _entry_of(proposer, proposals) if not is_long else await self._threaded(_entry_of, proposer, proposals)
        self._cache.put(key, entry, entry.num_bytes)
        return entry

    async def _drive(self, steps: Steps[Found], is_long: bool) -> Found:
        if not is_long:
            return await self._run(steps, in_thread=False)
        async with self._long_texts:
            return await self._run(steps, in_thread=True)

    async def _run(self, steps: Steps[Found], in_thread: bool) -> Found:
        """Run the engine's steps to the end. Raises LimitError when they need too many model tokens."""
        tokens, answer = 0, None
        while True:
            ask = await self._threaded(_advance, steps, answer) if in_thread else _advance(steps, answer)
            if not isinstance(ask, Ask):
                found: Found = ask.found
                return found
            tokens += sum(map(len, ask.inputs))
            if tokens > self._max_tokens:
                raise LimitError(
                    f"needs more than {self._max_tokens} model tokens; shorten the text, ask for fewer samples, or use "
                    "context unmasked",
                    "/texts",
                )
            answer = await self.models.answer(ask)

    def _room_for(self, size: float) -> asyncio.Semaphore:
        return self._medium_answers if size <= _MEDIUM_SIZE else self._long_answers

    async def _written(self, parts: Iterator[bytes]) -> bytes:
        """The parts, joined."""
        written: list[bytes] = []
        while await self._threaded(_write_for_a_turn, parts, written):
            pass
        answer: bytes = await self._threaded(b"".join, written)
        return answer

    async def _threaded(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


@dataclass(frozen=True, slots=True)
class _Done:
    found: Any


def _advance(steps: Steps[Any], answer: Answer | None) -> Ask | _Done:
    """The next Ask of the steps, or their result: StopIteration cannot be raised through a future."""
    try:
        return next(steps) if answer is None else steps.send(answer)
    except StopIteration as end:
        return _Done(end.value)


def _entry_of(proposer: Proposer, proposals: Sequence[TextProposals]) -> _Entry:
    texts = [proposer.text_candidates(one) for one in proposals]
    row = RowCandidates(0, texts[0], texts[1] if len(texts) > 1 else None)
    table = ChoiceTable.of([row], proposer.params.text)
    return _Entry(tuple(proposals), row, table, len(row.sites), _size_of(proposals, row))


def _draw(row: RowCandidates, table: ChoiceTable, params: AugmentParams) -> Samples:
    """The samples of a row. table: its choices, for any source id."""
    return draw_samples([row], params, table=replace(table, source_id=np.asarray([row.source_id], np.int64)))


def _write_for_a_turn(parts: Iterator[bytes], written: list[bytes]) -> bool:
    """Move parts to `written` until the turn is over. Returns whether there may be more."""
    until = time.monotonic() + _TURN_SECONDS
    for part in parts:
        written.append(part)
        if time.monotonic() > until:
            return True
    return False


def _size_of(proposals: Sequence[TextProposals], row: RowCandidates) -> int:
    """Estimated bytes of an entry, an overestimate: every string and number counts as a separate object."""
    candidates = sum(len(word) + 146 for site in row.sites for word in site.candidates)
    words = sum(320 + 36 * len(word.piece_ids) + len(word.text) for one in proposals for word in one.words)
    return 2_500 + candidates + words + 440 * len(row.sites) + 8 * sum(len(one.text) for one in proposals)
