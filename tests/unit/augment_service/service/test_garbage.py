"""Garbage collection stops the event loop, so a ready server leaves it little to visit."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import CoroutineType

import pytest

from augment_service.engine.glove import GloveVectors
from augment_service.engine.masked_lm import MaskedLM
from augment_service.service import garbage
from augment_service.service.batcher import PassBatcher
from augment_service.service.metrics import ServiceMetrics
from augment_service.service.models import LocalModels
from augment_service.service.neighbours import NeighbourBatcher
from augment_service.service.requests import AugmentRequest
from augment_service.service.state import State
from augment_service.service.text_routes import _sample_jobs
from shared.compute.memory import exempt_from_collection
from tests.support.models import save_random_model, save_random_vectors


@pytest.fixture(autouse=True)
def collected_again() -> Iterator[None]:
    yield
    gc.unfreeze()


def num_jobs() -> int:
    gc.collect()
    names = [one.__qualname__ for one in gc.get_objects() if isinstance(one, CoroutineType)]
    return names.count("Augmenter.samples")


def test_a_loaded_model_costs_no_collection_and_waiting_texts_are_no_objects(tmp_path: Path) -> None:
    async def load(_: ServiceMetrics) -> LocalModels:
        masked_lm = MaskedLM.load(str(save_random_model("bert-uncased", tmp_path / "mlm")), "cpu", "fp32", 1)
        vectors = GloveVectors.load(str(save_random_vectors(tmp_path / "glove.txt")))
        return LocalModels(PassBatcher(masked_lm=masked_lm, batch_tokens=1024), NeighbourBatcher(vectors=vectors), {})

    async def check() -> None:
        state, before = State(), gc.get_freeze_count()
        await state.load(load, cache_bytes=1_000, max_tokens=1_000, metrics=ServiceMetrics())
        # Torch and transformers alone are hundreds of thousands.
        assert gc.get_freeze_count() - before > 100_000
        augmenter = state.ready()
        body = AugmentRequest.model_validate({"texts": ["the quick brown fox"] * 100, "n_a": 2})
        jobs = _sample_jobs(augmenter, body)
        assert num_jobs() == 0
        first = next(jobs)
        assert num_jobs() == 1
        assert (await first).startswith(b'{"id":0,')
        assert [b'{"id":%d,' % number in await one for number, one in enumerate(jobs, start=1)] == [True] * 99
        await state.close()

    asyncio.run(check())


class Node:
    """A cycle of one."""

    def __init__(self) -> None:
        self.__dict__["itself"] = self


@pytest.mark.parametrize(("is_idle", "latest"), [(True, 1e9), (False, 0.0), (False, 1e9)])
def test_old_garbage_is_collected_when_nobody_waits_or_at_the_latest_time(
    is_idle: bool, latest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("CHECK_SECONDS", 0.001), ("IDLE_SECONDS", 0.0), ("LATEST_SECONDS", latest)):
        monkeypatch.setattr(garbage, name, value)

    async def check() -> bool:
        exempt_from_collection()
        before = gc.get_threshold()
        task = asyncio.create_task(garbage.collect_when_idle(lambda: is_idle))
        node = Node()
        watched = weakref.ref(node)
        gc.collect(1)
        gc.collect(1)
        del node
        for _ in range(20):
            await asyncio.sleep(0.01)
            gc.collect(1)
        assert gc.get_threshold()[:2] == before[:2]
        assert gc.get_threshold()[2] > 10**9
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert gc.get_threshold() == before
        return watched() is None

    assert asyncio.run(check()) is (is_idle or latest == 0.0)
