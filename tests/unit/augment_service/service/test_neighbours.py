"""Words of many requests: blocks in turn, refusals when the queue is full, cancelled requests, failed blocks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augment_service.engine.proposer import Nearest
from augment_service.service.neighbours import BLOCK_WORDS, NeighbourBatcher
from shared.errors import OverloadError


class Vectors:
    """Word vectors whose answers show word and K; a word takes `seconds`."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.blocks: list[list[str]] = []
        self.seconds = seconds

    def nearest(self, words: Sequence[str], k: int) -> Nearest:
        self.blocks.append(list(words))
        time.sleep(self.seconds * len(words))
        if "broken" in words:
            raise RuntimeError("broken")
        return {word: ((f"{word}-{k}", 1.0),) for word in words}


def words_of(request: str, count: int) -> tuple[str, ...]:
    return tuple(f"{request}{number}" for number in range(count))


def run(test: Any) -> Any:
    return asyncio.run(test)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 3), st.booleans()), max_size=12))
def test_every_request_gets_its_own_answers(requests: list[tuple[int, int, bool]]) -> None:
    vectors = Vectors()

    async def test() -> None:
        batcher = NeighbourBatcher(vectors=vectors)
        asked = []
        for number, (count, k, is_shared) in enumerate(requests):
            words = words_of("same" if is_shared else f"{number}-", count)
            asked.append((words, k, batcher.nearest(words, k)))
        for words, k, future in asked:
            assert await future == {word: ((f"{word}-{k}", 1.0),) for word in words}
        assert batcher.queued_words == 0
        await batcher.close()

    run(test())
    assert all(len(block) <= BLOCK_WORDS for block in vectors.blocks)


def test_a_small_request_does_not_wait_for_large_ones() -> None:
    vectors = Vectors(0.001)

    async def test() -> int:
        batcher = NeighbourBatcher(vectors=vectors, queue_seconds=100)
        large = [batcher.nearest(words_of(f"large{number}-", 1_200), 15) for number in range(8)]
        await asyncio.sleep(0.05)
        blocks = len(vectors.blocks)
        await batcher.nearest(words_of("small", 3), 15)
        blocks = len(vectors.blocks) - blocks
        for one in large:
            one.cancel()
        await batcher.close()
        return blocks

    blocks = run(test())
    assert blocks <= 5, f"it waited for {blocks} blocks of 600"


def test_words_of_a_cancelled_request_are_not_looked_up() -> None:
    vectors = Vectors(0.001)

    async def test() -> None:
        batcher = NeighbourBatcher(vectors=vectors)
        gone = batcher.nearest(words_of("gone", 2_000), 15)
        stays = batcher.nearest(words_of("stays", 40), 15)
        await asyncio.sleep(0.03)
        gone.cancel()
        assert len(await stays) == 40
        assert batcher.queued_words == 0
        await batcher.close()

    run(test())
    assert sum(map(len, vectors.blocks)) < 300


def test_closing_ends_after_the_current_block() -> None:
    async def test() -> float:
        batcher = NeighbourBatcher(vectors=Vectors(0.005))
        waiting = batcher.nearest(words_of("word", 5_000), 15)
        await asyncio.sleep(0.02)
        began = time.monotonic()
        await batcher.close()
        assert waiting.cancelled()
        return time.monotonic() - began

    assert run(test()) < 1.0


def test_words_count_for_admission_as_soon_as_they_are_asked_for() -> None:
    async def test() -> None:
        batcher = NeighbourBatcher(vectors=Vectors(), queue_seconds=1.0, words_per_second=100.0)
        batcher.admit()
        waiting = batcher.nearest(words_of("word", 600), 15)
        with pytest.raises(OverloadError, match="word vectors") as caught:
            batcher.admit()
        assert caught.value.retry_after_seconds == pytest.approx(3.0)
        await waiting
        batcher.admit()
        await batcher.close()

    run(test())


def test_the_throughput_follows_the_blocks_but_not_words_known_already() -> None:
    async def test() -> None:
        vectors = Vectors(0.01)
        batcher = NeighbourBatcher(vectors=vectors, words_per_second=1_000.0)
        await batcher.nearest(words_of("word", 48), 15)
        assert batcher.words_per_second < 300
        vectors.seconds = 0.0
        await batcher.nearest(words_of("word", 48), 15)
        assert batcher.words_per_second < 300
        await batcher.nearest(words_of("other", 480), 15)
        assert batcher.words_per_second > 1_000
        await batcher.close()

    run(test())


def test_a_failed_block_fails_its_requests_and_the_next_block_runs() -> None:
    async def test() -> None:
        batcher = NeighbourBatcher(vectors=Vectors())
        with pytest.raises(RuntimeError, match="broken"):
            await batcher.nearest(("a", "broken"), 3)
        assert await batcher.nearest(("a",), 3) == {"a": (("a-3", 1.0),)}
        await batcher.close()

    run(test())
