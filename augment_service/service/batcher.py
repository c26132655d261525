"""Model inputs of many requests -> shared passes of one model thread.

Each pass takes inputs from the waiting requests in turn, up to a budget of pieces: a request that fits into a pass is
done in its first turn, a larger one has a part of a pass and goes to the end of the queue, so that it never starves
others. An input's answer has the same bits in any company (decision 0013), so what is served beside a request never
changes its samples. Where a machine's products are not of that kind, requests share no pass.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from augment_service.engine.batches import ModelInput, Ranking, plan_batches
from augment_service.engine.masked_lm import MaskedLM
from shared.errors import OverloadError

_TURNS_PER_PASS = 4
"""A request larger than a pass takes at most this fraction of one at a turn while others wait."""
_RATE_MEMORY = 0.5


@dataclass(slots=True, eq=False)
class _Waiting:
    """One request's inputs: those not yet taken, and the answers so far."""

    inputs: Sequence[ModelInput]
    num_ranked: int
    whole_words: bool
    done: asyncio.Future[list[Ranking]]
    arrived: float
    answers: list[Ranking | None]
    num_tokens: int
    next_input: int = 0
    num_answered: int = 0


@dataclass(slots=True)
class PassReport:
    """One model pass, for the metrics."""

    num_inputs: int
    num_tokens: int
    num_requests: int
    seconds: float
    waited_seconds: float


@dataclass(slots=True)
class PassBatcher:
    """Waits, fills passes, runs them one after another on a thread. Use from one event loop."""

    masked_lm: MaskedLM
    batch_tokens: int
    max_wait_seconds: float = 0.002
    queue_seconds: float = 2.0
    shares_passes: bool = True
    report: Callable[[PassReport], None] = lambda _: None
    queued_tokens: int = 0
    tokens_per_second: float = 5_000.0
    _queue: deque[_Waiting] = field(default_factory=deque)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "model"))
    _task: asyncio.Task[None] | None = None

    def rank(self, inputs: Sequence[ModelInput], num_ranked: int, whole_words: bool) -> asyncio.Future[list[Ranking]]:
        """One Ranking per input; cancelling takes the inputs out of the queue.

        They are in the queue when this returns, not only when its result is awaited: requests that arrive together
        are each admitted by what the others have asked for.
        """
        loop = asyncio.get_running_loop()
        num_tokens = sum(map(len, inputs))
        one = _Waiting(
            inputs, num_ranked, whole_words, loop.create_future(), time.monotonic(), [None] * len(inputs), num_tokens
        )
        if not inputs:
            one.done.set_result([])
            return one.done
        one.done.add_done_callback(lambda _: self._withdraw(one))
        if self._task is None:
            self._task = loop.create_task(self._run(), name="model passes")
        self._queue.append(one)
        self.queued_tokens += num_tokens
        self._wake.set()
        return one.done

    def _withdraw(self, one: _Waiting) -> None:
        # What was not taken yet never will be.
        self.queued_tokens -= sum(map(len, one.inputs[one.next_input :]))
        one.next_input = len(one.inputs)

    def admit(self) -> None:
        """Raises OverloadError when what waits already takes the model longer than `queue_seconds`."""
        wait = self.queued_tokens / self.tokens_per_second
        if wait > self.queue_seconds:
            raise OverloadError(f"the model is busy for another {wait:.1f} s; try again later", max(wait / 2, 1.0))

    async def close(self) -> None:
        """Stop; requests that still wait are cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for one in self._queue:
            one.done.cancel()
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _run(self) -> None:
        while True:
            await self._wait_for_company()
            taken = self._take()
            if taken:
                await self._pass(taken)

    async def _wait_for_company(self) -> None:
        while not self._queue:
            self._wake.clear()
            await self._wake.wait()
        until = self._queue[0].arrived + self.max_wait_seconds
        while self.queued_tokens < self.batch_tokens and (left := until - time.monotonic()) > 0:
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), left)
            except TimeoutError:
                return

    def _take(self) -> list[tuple[_Waiting, int]]:
        """(request, input number) of the next pass, from the requests in turn."""
        taken: list[tuple[_Waiting, int]] = []
        tokens, first, skipped = 0, None, deque[_Waiting]()
        while self._queue and tokens < self.batch_tokens:
            one = self._queue.popleft()
            if one.done.done() or one.next_input == len(one.inputs):
                continue
            first = first or one
            if one.whole_words != first.whole_words or (one is not first and not self.shares_passes):
                skipped.append(one)
                continue
            turn = max(self.batch_tokens // (_TURNS_PER_PASS if one.num_tokens > self.batch_tokens else 1), 1)
            given = 0
            while one.next_input < len(one.inputs) and given < turn:
                length = len(one.inputs[one.next_input])
                if taken and tokens + length > self.batch_tokens:
                    break
                taken.append((one, one.next_input))
                one.next_input += 1
                self.queued_tokens -= length
                given, tokens = given + length, tokens + length
            if one.next_input == len(one.inputs):
                continue
            if given >= turn:
                self._queue.append(one)
                continue
            self._queue.appendleft(one)  # the pass is full and its turn not over
            break
        self._queue.extendleft(reversed(skipped))
        return taken

    async def _pass(self, taken: list[tuple[_Waiting, int]]) -> None:
        began = time.monotonic()
        width = max(one.num_ranked for one, _ in taken)
        plan = plan_batches([one.inputs[number] for one, number in taken], self.batch_tokens)
        try:
            rankings = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._rank, plan.unique, plan.batches, width, taken[0][0].whole_words
            )
        except Exception as error:
            for one, _ in taken:
                if not one.done.done():
                    one.done.set_exception(error)
            return
        for (one, number), index in zip(taken, plan.index_of, strict=True):
            ranking = rankings[index]
            one.answers[number] = Ranking(ranking.ids[:, : one.num_ranked], ranking.scores[:, : one.num_ranked])
            one.num_answered += 1
            if one.num_answered == len(one.inputs) and not one.done.done():
                one.done.set_result([answer for answer in one.answers if answer is not None])
        seconds = max(time.monotonic() - began, 1e-6)
        tokens = sum(map(len, plan.unique))
        # Small passes are dominated by fixed costs: they say little about the rate of a full one.
        if tokens * 4 >= self.batch_tokens:
            self.tokens_per_second += (1 - _RATE_MEMORY) * (tokens / seconds - self.tokens_per_second)
        waited = began - min(one.arrived for one, _ in taken)
        self.report(PassReport(len(plan.unique), tokens, len({id(one) for one, _ in taken}), seconds, waited))

    def _rank(
        self, inputs: Sequence[ModelInput], batches: Sequence[Sequence[int]], width: int, whole_words: bool
    ) -> list[Ranking]:
        excluded = ~self.masked_lm.lexicon.vocabulary.is_whole_word if whole_words else None
        return self.masked_lm.rank(inputs, batches, width, excluded)
