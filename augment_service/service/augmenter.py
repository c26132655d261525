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

from augment_service.engine.proposer import Ask, Proposer, Steps, TextProposals
from augment_service.engine.sampling import samples_steps
from augment_service.service.cache import ByteLru
from augment_service.service.metrics import ServiceMetrics
from augment_service.service.models import Models
from augment_service.service.requests import LimitError, as_columns
from shared.inputs.rows import SourceRow
from shared.params import AugmentParams
from shared.sampling import RowCandidates, Samples, draw_samples

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
        return {"id": source_id, "samples": await self._call(is_long, sample_list, row, samples)}

    async def candidates(self, text: str | Sequence[str], params: AugmentParams, ticket: Ticket) -> dict[str, Any]:
        """Words and candidates of one text or pair. Raises LimitError, OverloadError, ModelError."""
        entry = await self._entry(as_columns(text), params, ticket)
        texts = [entry.row.text_a, entry.row.text_b]
        proposer = Proposer(self.models.lexicon, params)
        columns = [
            _column(proposer, proposals, one.text)
            for proposals, one in zip(entry.proposals, texts, strict=False)
            if one is not None
        ]
        return {"text_a": columns[0], "text_b": columns[1] if len(columns) > 1 else None}

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


def sample_list(row: RowCandidates, samples: Samples) -> list[dict[str, Any]]:
    """JSON form of the samples of one row; `replaced` holds code points of the sample's own text."""
    sites = [("text_a", site) for site in row.text_a.sites]
    sites += [("text_b", site) for site in row.text_b.sites] if row.text_b else []
    offsets, numbers = samples.offsets.tolist(), samples.n.tolist()
    chosen, words, origins = samples.site.tolist(), samples.word.tolist(), samples.origin.tolist()
    result = []
    for index, n in enumerate(numbers):
        parts: dict[str, list[str]] = {"text_a": [], "text_b": []}
        last, length = {"text_a": 0, "text_b": 0}, {"text_a": 0, "text_b": 0}
        replaced = []
        for place in range(offsets[index], offsets[index + 1]):
            column, site = sites[chosen[place]]
            candidate = samples.words[words[place]]
            base = row.text_a.text if column == "text_a" else row.text_b.text  # type: ignore[union-attr]
            start = length[column] + site.start - last[column]
            end = start + len(candidate)
            parts[column] += (base[last[column] : site.start], candidate)
            last[column], length[column] = site.end, end
            origin = "glove" if origins[place] else "mlm"
            replaced.append(
                {"column": column, "start": start, "end": end, "word": site.word, "candidate": candidate,
                 "origin": origin}
            )  # fmt: skip
        text_a = "".join([*parts["text_a"], row.text_a.text[last["text_a"] :]])
        text_b = "".join([*parts["text_b"], row.text_b.text[last["text_b"] :]]) if row.text_b else None
        result.append({"n": n, "text_a": text_a, "text_b": text_b, "replaced": replaced})
    return result


def _column(proposer: Proposer, found: TextProposals, text: str) -> dict[str, Any]:
    _, spans = proposer.base_text(found.text, found.words)
    proposal_of = {one.word_index: one for one in found.proposals}
    words = []
    for index, (word, (start, end)) in enumerate(zip(found.words, spans, strict=True)):
        one = proposal_of.get(index)
        words.append(
            {"start": start, "end": end, "word": word.text, "origin": one.origin if one else None,
             "candidates": one.candidates if one else (), "scores": one.scores if one else ()}
        )  # fmt: skip
    return {"text": text, "words": words}


def _size_of(entry: _Entry) -> int:
    """Bytes of an entry, roughly and rather too many: every string and number as an object of its own."""
    candidates = sum(len(word) + 130 for site in entry.row.sites for word in site.candidates)
    words = sum(320 + 36 * len(word.piece_ids) + len(word.text) for one in entry.proposals for word in one.words)
    return 1_000 + candidates + words + 400 * len(entry.row.sites) + 8 * sum(len(one.text) for one in entry.proposals)
