"""Words of many requests -> their nearest words, in small blocks on one thread.

Ranking a word takes about a millisecond, and a text can have a thousand words. So a block takes a few words from each
waiting request in turn: a request with few words waits for a block or two, and the remaining words of a cancelled
request are never computed. A word's neighbours do not depend on the other words of its block.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from augment_service.engine.proposer import Nearest, Neighbours
from shared.errors import OverloadError

BLOCK_WORDS = 16
_TURN_WORDS = 4
"""While others wait, a request with more words than a block gets at most this many per turn."""
_RATE_MEMORY = 0.5
"""Weight of the previous estimate when the throughput estimate is updated."""
_MAX_SEEN = 100_000
"""Words remembered as seen: as many as the vectors cache answers for."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """One request: its words, how many of them have been put into blocks, and the answers so far."""

    words: tuple[str, ...]
    k: int
    done: asyncio.Future[Nearest]
    found: Nearest = field(default_factory=dict)
    next_word: int = 0

    def num_left(self) -> int:
        """Words that are not in a block yet and were not withdrawn."""
        return len(self.words) - self.next_word


@dataclass(slots=True, kw_only=True)
class NeighbourBatcher:
    """Looks up the words of many requests. Use from one event loop.

    queue_seconds: new requests are refused above this estimated queueing time. words_per_second: initial throughput,
    as measured at startup; it is kept up to date.
    """

    vectors: Neighbours
    queue_seconds: float = 2.0
    words_per_second: float = 500.0
    queued_words: int = 0
    _queue: deque[_Waiting] = field(default_factory=deque)
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "vectors"))
    _task: asyncio.Task[None] | None = None
    _seen: set[tuple[str, int]] = field(default_factory=set)

    def nearest(self, words: tuple[str, ...], k: int) -> asyncio.Future[Nearest]:
        """The K nearest (word, cosine) of each word. Cancelling the future removes its words from the queue.

        The words are queued by the time this returns, so `admit` counts them for requests that arrive at the same time.
        """
        loop = asyncio.get_running_loop()
        one = _Waiting(tuple(dict.fromkeys(words)), k, loop.create_future())
        if not words:
            one.done.set_result({})
            return one.done
        one.done.add_done_callback(lambda _: self._withdraw(one))
        self._queue.append(one)
        self.queued_words += len(one.words)
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run(), name="neighbours")
        return one.done

    def admit(self) -> None:
        """Raises OverloadError when the backlog would take longer than `queue_seconds`."""
        wait = self.queued_words / self.words_per_second
        if wait > self.queue_seconds:
            raise OverloadError(
                f"the word vectors are busy for another {wait:.1f} s; try again later", max(wait / 2, 1.0)
            )

    async def close(self) -> None:
        """Stop after the current block, and cancel the requests that are still waiting."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for one in list(self._queue):
            one.done.cancel()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _withdraw(self, one: _Waiting) -> None:
        self.queued_words -= one.num_left()
        one.next_word = len(one.words)

    async def _run(self) -> None:
        while block := self._take():
            words = list(dict.fromkeys(word for _, part in block for word in part))
            began = time.monotonic()
            try:
                nearest = await asyncio.get_running_loop().run_in_executor(
                    self._thread, self.vectors.nearest, words, block[0][0].k
                )
            except Exception as error:
                for one, _ in block:
                    if not one.done.done():
                        one.done.set_exception(error)
                continue
            self._measure(words, block[0][0].k, max(time.monotonic() - began, 1e-6))
            for one, part in block:
                one.found.update((word, nearest[word]) for word in part)
                if len(one.found) == len(one.words) and not one.done.done():
                    one.done.set_result(one.found)

    def _take(self) -> list[tuple[_Waiting, tuple[str, ...]]]:
        """The words of the next block, taken round-robin from the requests. A block has a single K."""
        taken: dict[int, tuple[_Waiting, tuple[str, ...]]] = {}
        k, room, skipped = None, BLOCK_WORDS, deque[_Waiting]()
        while self._queue and room:
            one = self._queue.popleft()
            if one.done.done() or not one.num_left():
                continue
            k = one.k if k is None else k
            if one.k != k:
                skipped.append(one)
                continue
            turn = min(_TURN_WORDS if len(one.words) > BLOCK_WORDS else BLOCK_WORDS, room)
            part = one.words[one.next_word : one.next_word + turn]
            one.next_word += len(part)
            self.queued_words -= len(part)
            room -= len(part)
            before = taken.get(id(one))
            taken[id(one)] = (one, (before[1] if before else ()) + part)
            if one.num_left():
                self._queue.append(one)
        self._queue.extendleft(reversed(skipped))
        return list(taken.values())

    def _measure(self, words: list[str], k: int, seconds: float) -> None:
        # Words looked up before are answered from the cache, so they are left out of the throughput estimate.
        new = {(word, k) for word in words} - self._seen
        if 2 * len(new) >= BLOCK_WORDS:
            self.words_per_second += (1 - _RATE_MEMORY) * (len(new) / seconds - self.words_per_second)
        if len(self._seen) > _MAX_SEEN:
            self._seen.clear()
        self._seen |= new
