"""Model inputs of many requests -> shared passes on one model thread.

Each pass takes inputs round-robin from the waiting requests, up to a token budget. A request that fits into one pass is
done on its first turn. A larger request gets part of a pass and returns to the end of the queue, so it never starves
the others. The masked LM is batch-invariant (decision 0013): an input's result does not depend on what else is in the
pass, so concurrent requests never change each other's samples. Where that does not hold, passes are not shared.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from augment_service.engine.batches import BatchPlan, ModelInput, Ranking, plan_batches
from augment_service.engine.masked_lm import MaskedLM
from shared.errors import OverloadError

_TURNS_PER_PASS = 4
"""While others wait, a request larger than a pass gets at most 1 / this of a pass per turn."""
_RATE_MEMORY = 0.5
"""Weight of the previous estimate when the throughput estimate is updated."""


@dataclass(slots=True, eq=False, kw_only=True)
class _Waiting:
    """One request: its inputs, how many of them have been put into passes, and the answers so far."""

    inputs: Sequence[ModelInput]
    num_ranked: int
    whole_words: bool
    done: asyncio.Future[list[Ranking]]
    arrived: float
    num_tokens: int
    answers: list[Ranking | None]
    next_input: int = 0
    num_answered: int = 0

    def is_taken(self) -> bool:
        """Whether every input is in a pass or was withdrawn."""
        return self.next_input == len(self.inputs)

    def answer(self, number: int, ranking: Ranking) -> None:
        """Store the answer of one input, and complete the request with the last one."""
        self.answers[number] = Ranking(ranking.ids[:, : self.num_ranked], ranking.scores[:, : self.num_ranked])
        self.num_answered += 1
        if self.num_answered == len(self.inputs) and not self.done.done():
            self.done.set_result([answer for answer in self.answers if answer is not None])


@dataclass(frozen=True, slots=True, kw_only=True)
class PassReport:
    """One model pass, for the metrics."""

    num_inputs: int
    num_tokens: int
    num_requests: int
    seconds: float
    waited_seconds: float


def ignore_report(_: PassReport) -> None:
    """Discard the report."""


@dataclass(slots=True, kw_only=True)
class PassBatcher:
    """Collects inputs into passes and runs the passes one after another on a thread. Use from one event loop.

    max_wait_seconds: how long a pass that is not full waits for more inputs. queue_seconds: new requests are refused
    above this estimated queueing time. shares_passes: whether a pass may hold inputs of several requests.
    """

    masked_lm: MaskedLM
    batch_tokens: int
    max_wait_seconds: float = 0.002
    queue_seconds: float = 2.0
    shares_passes: bool = True
    report: Callable[[PassReport], None] = ignore_report
    queued_tokens: int = 0
    tokens_per_second: float = 5_000.0
    _queue: deque[_Waiting] = field(default_factory=deque)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "model"))
    _task: asyncio.Task[None] | None = None

    def rank(self, inputs: Sequence[ModelInput], num_ranked: int, whole_words: bool) -> asyncio.Future[list[Ranking]]:
        """One Ranking per input. Cancelling the future removes its inputs from the queue.

        The inputs are queued by the time this returns, before the result is awaited, so that `admit` counts them for
        requests that arrive at the same moment.
        """
        loop = asyncio.get_running_loop()
        one = _Waiting(
            inputs=inputs,
            num_ranked=num_ranked,
            whole_words=whole_words,
            done=loop.create_future(),
            arrived=time.monotonic(),
            num_tokens=sum(map(len, inputs)),
            answers=[None] * len(inputs),
        )
        if not inputs:
            one.done.set_result([])
            return one.done
        one.done.add_done_callback(lambda _: self._withdraw(one))
        if self._task is None:
            self._task = loop.create_task(self._run(), name="model passes")
        self._queue.append(one)
        self.queued_tokens += one.num_tokens
        self._wake.set()
        return one.done

    def _withdraw(self, one: _Waiting) -> None:
        # Drop the inputs that are not in a pass yet.
        self.queued_tokens -= sum(map(len, one.inputs[one.next_input :]))
        one.next_input = len(one.inputs)

    def admit(self) -> None:
        """Raises OverloadError when the backlog would keep the model busy for longer than `queue_seconds`."""
        wait = self.queued_tokens / self.tokens_per_second
        if wait > self.queue_seconds:
            raise OverloadError(f"the model is busy for another {wait:.1f} s; try again later", max(wait / 2, 1.0))

    async def close(self) -> None:
        """Stop, and cancel the requests that are still waiting."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for one in self._queue:
            one.done.cancel()
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _run(self) -> None:
        while True:
            await self._wait_for_inputs()
            taken = self._take()
            if taken:
                await self._pass(taken)

    async def _wait_for_inputs(self) -> None:
        """Wait until the queue fills a pass, or its first request has waited `max_wait_seconds`."""
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
        """(request, input number) pairs of the next pass, taken round-robin from the requests."""
        taken: list[tuple[_Waiting, int]] = []
        tokens, first, skipped = 0, None, deque[_Waiting]()
        while self._queue and tokens < self.batch_tokens:
            one = self._queue.popleft()
            if one.done.done() or one.is_taken():
                continue
            first = first or one
            if one.whole_words != first.whole_words or (one is not first and not self.shares_passes):
                skipped.append(one)
                continue
            turn = max(self.batch_tokens // (_TURNS_PER_PASS if one.num_tokens > self.batch_tokens else 1), 1)
            given = 0
            while not one.is_taken() and given < turn:
                length = len(one.inputs[one.next_input])
                if taken and tokens + length > self.batch_tokens:
                    break
                taken.append((one, one.next_input))
                one.next_input += 1
                self.queued_tokens -= length
                given, tokens = given + length, tokens + length
            if one.is_taken():
                continue
            if given >= turn:
                self._queue.append(one)
                continue
            self._queue.appendleft(one)  # the pass is full, but the request's turn is not over
            break
        self._queue.extendleft(reversed(skipped))
        return taken

    async def _pass(self, taken: list[tuple[_Waiting, int]]) -> None:
        began = time.monotonic()
        width = max(one.num_ranked for one, _ in taken)
        plan = plan_batches([one.inputs[number] for one, number in taken], self.batch_tokens)
        try:
            rankings = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._rank, plan, width, taken[0][0].whole_words
            )
        except Exception as error:
            for one, _ in taken:
                if not one.done.done():
                    one.done.set_exception(error)
            return
        for (one, number), index in zip(taken, plan.index_of, strict=True):
            one.answer(number, rankings[index])
        seconds = max(time.monotonic() - began, 1e-6)
        tokens = len(plan.unique.ids)
        # Fixed costs dominate small passes, so they are a poor estimate of the throughput of a full one.
        if tokens * 4 >= self.batch_tokens:
            self.tokens_per_second += (1 - _RATE_MEMORY) * (tokens / seconds - self.tokens_per_second)
        self.report(
            PassReport(
                num_inputs=len(plan.unique),
                num_tokens=tokens,
                num_requests=len({id(one) for one, _ in taken}),
                seconds=seconds,
                waited_seconds=began - min(one.arrived for one, _ in taken),
            )
        )

    def _rank(self, plan: BatchPlan, width: int, whole_words: bool) -> Sequence[Ranking]:
        excluded = ~self.masked_lm.lexicon.vocabulary.is_whole_word if whole_words else None
        return self.masked_lm.rank(plan.unique, plan.batches, width, excluded)
