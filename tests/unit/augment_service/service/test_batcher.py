"""The batcher: passes shared in turn, refusals when the queue is full, cancelled requests, failed passes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest

from augment_service.engine.batches import ModelInput, Ranking
from augment_service.engine.masked_lm import MaskedLM
from augment_service.service.batcher import PassBatcher, PassReport
from shared.errors import OverloadError


class CountingModel:
    """Replaces a masked LM: the answer to an input is its own first id, so a mix-up is visible."""

    def __init__(self) -> None:
        self.passes: list[list[int]] = []

    def rank(self, inputs: Sequence[ModelInput], batches: Any, k: int, excluded: Any) -> list[Ranking]:
        self.passes.append([one.ids[0] for one in inputs])
        return [Ranking(np.full((1, k), one.ids[0]), np.zeros((1, k), np.float32)) for one in inputs]


def inputs_of(request: int, count: int, length: int = 10) -> list[ModelInput]:
    return [ModelInput((request * 1000 + number, *range(length - 1)), (1,), length) for number in range(count)]


def batcher_of(model: CountingModel, **options: Any) -> PassBatcher:
    return PassBatcher(masked_lm=cast(MaskedLM, model), batch_tokens=100, **options)


def test_requests_share_passes_in_turn_and_each_gets_its_own_answers() -> None:
    model, reports = CountingModel(), list[PassReport]()
    sizes = [120, 3, 1, 40]

    async def run() -> None:
        batcher = batcher_of(model, report=reports.append)
        jobs = [batcher.rank(inputs_of(request, size), 3 + request, False) for request, size in enumerate(sizes)]
        for request, answers in enumerate(await asyncio.gather(*jobs)):
            assert [int(one.ids[0, 0]) for one in answers] == [request * 1000 + n for n in range(sizes[request])]
            assert all(one.ids.shape == (1, 3 + request) for one in answers)
        assert batcher.queued_tokens == 0
        await batcher.close()

    asyncio.run(run())
    assert {first // 1000 for first in model.passes[0]} == {0, 1, 2, 3}, "the large request filled the first pass"
    assert all(report.num_tokens <= 100 for report in reports)
    assert len(model.passes) < 25


def test_requests_share_no_pass_without_batch_invariance() -> None:
    model = CountingModel()

    async def run() -> None:
        batcher = batcher_of(model, shares_passes=False)
        await asyncio.gather(*(batcher.rank(inputs_of(request, 15), 3, False) for request in range(5)))
        await batcher.close()

    asyncio.run(run())
    assert all(len({first // 1000 for first in one}) == 1 for one in model.passes)


def test_a_cancelled_request_leaves_the_queue() -> None:
    model = CountingModel()

    async def run() -> None:
        batcher = batcher_of(model)
        gone = asyncio.ensure_future(batcher.rank(inputs_of(1, 500), 3, False))
        stays = asyncio.ensure_future(batcher.rank(inputs_of(2, 30), 3, False))
        await asyncio.sleep(0)
        gone.cancel()
        assert len(await stays) == 30
        assert batcher.queued_tokens == 0
        await batcher.close()

    asyncio.run(run())
    assert sum(len(one) for one in model.passes) < 100


def test_a_full_queue_refuses_and_says_when_to_retry() -> None:
    async def run() -> None:
        batcher = batcher_of(CountingModel(), queue_seconds=1.0, tokens_per_second=100.0)
        batcher.admit()
        waiting = batcher.rank(inputs_of(1, 60), 3, False)
        with pytest.raises(OverloadError) as caught:
            batcher.admit()
        assert caught.value.retry_after_seconds == pytest.approx(3.0)
        await waiting
        batcher.admit()
        await batcher.close()

    asyncio.run(run())


def test_requests_that_arrive_together_count_for_each_others_admission() -> None:
    async def run() -> None:
        batcher = batcher_of(CountingModel(), queue_seconds=1.0, tokens_per_second=100.0)
        admitted = []

        async def request(number: int) -> None:
            batcher.admit()
            admitted.append(number)
            await asyncio.gather(batcher.rank(inputs_of(number, 4), 3, False))

        results = await asyncio.gather(*map(request, range(20)), return_exceptions=True)
        # Each request has 40 tokens, and a request is admitted while at most 100 are queued.
        assert admitted == [0, 1, 2]
        assert [type(one) for one in results] == [type(None)] * 3 + [OverloadError] * 17
        await batcher.close()

    asyncio.run(run())


def test_a_request_that_fits_into_one_pass_is_done_on_its_first_turn() -> None:
    model = CountingModel()

    async def run() -> None:
        batcher = batcher_of(model)
        await asyncio.gather(*(batcher.rank(inputs_of(request, 8), 3, False) for request in range(5)))
        await batcher.close()

    asyncio.run(run())
    last_pass = {first // 1000: number for number, one in enumerate(model.passes) for first in one}
    assert [last_pass[request] for request in range(5)] == [0, 1, 2, 3, 3]


def test_a_failed_pass_fails_its_requests_and_the_next_pass_runs() -> None:
    class Broken(CountingModel):
        def rank(self, inputs: Sequence[ModelInput], batches: Any, k: int, excluded: Any) -> list[Ranking]:
            if inputs[0].ids[0] >= 1000:
                raise RuntimeError("broken")
            return super().rank(inputs, batches, k, excluded)

    async def run() -> None:
        batcher = batcher_of(Broken())
        with pytest.raises(RuntimeError, match="broken"):
            await batcher.rank(inputs_of(1, 3), 3, False)
        assert len(await batcher.rank(inputs_of(0, 3), 3, False)) == 3
        await batcher.close()

    asyncio.run(run())
