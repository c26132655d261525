"""The parts of the service without a server: cache, tokens, batcher, rendering of samples, lines of a stream."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augment_service.engine.batches import ModelInput, Ranking
from augment_service.service.access import Access, check_binding, is_loopback, read_tokens
from augment_service.service.batcher import PassBatcher, PassReport
from augment_service.service.cache import ByteLru
from augment_service.service.client import _Lines
from augment_service.service.deployments import split_inputs
from shared.candidates import RowCandidates, Site, TextCandidates
from shared.errors import OverloadError, UsageError
from shared.params import AugmentParams
from shared.rendering import render_rows, render_samples
from shared.sampling import draw_samples

LETTERS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)


@st.composite
def texts(draw: st.DrawFn) -> TextCandidates:
    parts = draw(st.lists(st.tuples(LETTERS, LETTERS, st.lists(LETTERS, max_size=4, unique=True)), max_size=5))
    text, sites = "", []
    for gap, word, candidates in parts:
        text += gap
        sites.append(Site(len(text), len(text) + len(word), word, "mlm", tuple(candidates), (0.0,) * len(candidates)))
        text += word
    return TextCandidates(text + draw(LETTERS), tuple(sites))


@given(texts(), st.none() | texts(), st.integers(0, 2**63 - 1))
def test_samples_of_a_request_are_spelled_as_those_of_a_shard(
    a: TextCandidates, b: TextCandidates | None, seed: int
) -> None:
    row = RowCandidates(5, a, b)
    samples = draw_samples([row], AugmentParams(n_a=6, seed=seed))
    rendered = render_samples([row], samples)
    expected = [
        {"n": n, "text_a": text_a, "text_b": text_b, "replaced": replaced}
        for n, text_a, text_b, replaced in zip(
            samples.n.tolist(), rendered.text_a.to_pylist(), rendered.text_b.to_pylist(),
            rendered.replaced.to_pylist(), strict=True,
        )
    ]  # fmt: skip
    assert render_rows([row], samples) == [expected]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40))), st.integers(0, 100))
def test_the_cache_never_passes_its_bound(puts: list[tuple[int, int]], bound: int) -> None:
    cache: ByteLru[int] = ByteLru(bound)
    sizes: dict[int, int] = {}
    for key, size in puts:
        cache.put(key, size, size)
        if size <= bound:
            sizes[key] = size
        assert cache.num_bytes <= bound
        kept = [one for one in sizes if cache._entries.get(one) is not None]
        assert cache.num_bytes == sum(cache._entries[one][1] for one in kept)
        assert size > bound or cache.get(key) == size


def test_the_cache_drops_what_was_not_used_for_longest() -> None:
    cache: ByteLru[str] = ByteLru(30)
    for key in "abc":
        cache.put(key, key, 10)
    assert cache.get("a") == "a"
    cache.put("d", "d", 10)
    assert [cache.get(key) for key in "abcd"] == ["a", None, "c", "d"]


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        (b"Bearer one-token-that-is-long", True), (b"bearer two-token-that-is-long", True), (None, False), (b"", False),
        (b"Bearer one-token-that-is-lonG", False), (b"Basic one-token-that-is-long", False), (b"Bearer", False),
        (b"Bearer one-token-that-is-long two-token-that-is-long", False), (b"\xff\xfe", False),
    ],
)  # fmt: skip
def test_tokens(header: bytes | None, allowed: bool) -> None:
    access = Access(["one-token-that-is-long", "two-token-that-is-long"])
    assert access.allows(header) is allowed
    assert Access([]).allows(header)


def test_only_loopback_goes_without_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost", "[::1]", "LOCALHOST."):
        assert is_loopback(host)
        check_binding(host, False, False)
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", "127.0.0.1.example.org", ""):
        assert not is_loopback(host)
        with pytest.raises(UsageError, match="can be reached"):
            check_binding(host, False, False)
        check_binding(host, True, False)
        check_binding(host, False, True)
    monkeypatch.setenv("AUGMENT_SERVICE_TOKENS", " a-token-of-the-tests , ,another-token-here ")
    assert read_tokens(None) == ["a-token-of-the-tests", "another-token-here"]


class CountingModel:
    """Stands for a masked LM: the answer of an input is its own first id, so a mix-up shows."""

    def __init__(self) -> None:
        self.passes: list[list[int]] = []

    def rank(self, inputs: Sequence[ModelInput], batches: Any, k: int, excluded: Any) -> list[Ranking]:
        self.passes.append([one.ids[0] for one in inputs])
        return [Ranking(np.full((1, k), one.ids[0]), np.zeros((1, k), np.float32)) for one in inputs]


def inputs_of(request: int, count: int, length: int = 10) -> list[ModelInput]:
    return [ModelInput((request * 1000 + number, *range(length - 1)), (1,), length) for number in range(count)]


def batcher_of(model: CountingModel, **options: Any) -> PassBatcher:
    return PassBatcher(model, 100, **options)  # type: ignore[arg-type]


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
    assert {first // 1000 for first in model.passes[0]} == {0, 1, 2, 3}, "the large request took the first pass alone"
    assert all(report.num_tokens <= 100 for report in reports)
    assert len(model.passes) < 25


def test_where_company_matters_no_pass_is_shared() -> None:
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


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
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


def test_requests_that_arrive_together_are_admitted_one_after_the_other() -> None:
    async def run() -> None:
        batcher = batcher_of(CountingModel(), queue_seconds=1.0, tokens_per_second=100.0)
        admitted = []

        async def request(number: int) -> None:
            batcher.admit()
            admitted.append(number)
            await asyncio.gather(batcher.rank(inputs_of(number, 4), 3, False))

        results = await asyncio.gather(*map(request, range(20)), return_exceptions=True)
        # 40 pieces each, 100 in the queue at most when one is let in
        assert admitted == [0, 1, 2]
        assert [type(one) for one in results] == [type(None)] * 3 + [OverloadError] * 17
        await batcher.close()

    asyncio.run(run())


def test_what_fits_into_a_pass_is_done_in_its_first_turn() -> None:
    model = CountingModel()

    async def run() -> None:
        batcher = batcher_of(model)
        await asyncio.gather(*(batcher.rank(inputs_of(request, 8), 3, False) for request in range(5)))
        await batcher.close()

    asyncio.run(run())
    last_pass = {first // 1000: number for number, one in enumerate(model.passes) for first in one}
    assert [last_pass[request] for request in range(5)] == [0, 1, 2, 3, 3]


def test_an_error_of_a_pass_reaches_its_requests_and_the_next_pass_runs() -> None:
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


@given(st.lists(st.integers(1, 30), max_size=30), st.integers(1, 60))
def test_parts_of_a_call_are_the_inputs_in_order(lengths: list[int], max_tokens: int) -> None:
    inputs = [ModelInput((number, *range(length - 1)), (0,), length) for number, length in enumerate(lengths)]
    parts = split_inputs(inputs, max_tokens)
    assert [one for part in parts for one in part] == inputs
    assert all(len(part) == 1 or sum(map(len, part)) <= max_tokens for part in parts)
    assert all(len(part) for part in parts)


def test_lines_end_at_line_feeds_alone() -> None:
    whole = "a\u2028b\x85c\n\r\x0bd\n".encode()
    rng = random.Random(1)
    for _ in range(20):
        lines, found, place = _Lines(), list[bytes](), 0
        while place < len(whole):
            step = rng.randrange(1, 4)
            found += lines.add(whole[place : place + step])
            place += step
        assert found == ["a\u2028b\x85c".encode(), b"\r\x0bd"]
