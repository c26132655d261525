"""Answers that are written on the thread: the same bytes, in turns, and only a few at a time."""

from __future__ import annotations

import asyncio
import json

import pytest

import augment_service.service.augmenter as module
from augment_service.engine.glove import GloveVectors
from augment_service.engine.masked_lm import MaskedLM
from augment_service.service.augmenter import Augmenter
from augment_service.service.batcher import PassBatcher
from augment_service.service.metrics import ServiceMetrics
from augment_service.service.models import LocalModels
from augment_service.service.neighbours import NeighbourBatcher
from shared.params import AugmentParams
from tests.support.models import save_random_model, save_random_vectors

WORDS = "the quick brown fox jumps over a lazy dog near small rivers and great".split()  # noqa: SIM905
SHORT, LONG = " ".join(WORDS[:12]), " ".join(WORDS * 12)
PARAMS = AugmentParams(n_a=5, words="all", context="unmasked")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[MaskedLM, GloveVectors]:
    folder = tmp_path_factory.mktemp("models")
    masked_lm = MaskedLM.load(str(save_random_model("bert-uncased", folder / "mlm")), "cpu", "fp32", 1)
    return masked_lm, GloveVectors.load(str(save_random_vectors(folder / "glove.txt")))


def started(models: tuple[MaskedLM, GloveVectors]) -> Augmenter:
    masked_lm, vectors = models
    local = LocalModels(PassBatcher(masked_lm=masked_lm, batch_tokens=1024), NeighbourBatcher(vectors=vectors), {})
    return Augmenter(local, cache_bytes=10_000_000, max_tokens=100_000, metrics=ServiceMetrics())


async def answers(augmenter: Augmenter, text: str | list[str]) -> tuple[bytes, bytes]:
    ticket = augmenter.ticket()
    return await augmenter.samples(text, 3, PARAMS, ticket), await augmenter.candidates(text, PARAMS, ticket)


def everything_on_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn for each part, and no answer is short."""
    monkeypatch.setattr(module, "_TURN_SECONDS", -1.0)
    for limit in ("_INLINE_DRAWN_WORDS", "_INLINE_ANSWER_CHARACTERS", "_INLINE_CANDIDATES"):
        monkeypatch.setattr(module, limit, 1e-9)


@pytest.mark.parametrize("text", [SHORT, LONG, [SHORT, LONG], "..."])
def test_an_answer_in_turns_has_the_bytes_of_one_at_once(
    models: tuple[MaskedLM, GloveVectors], text: str | list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer() -> tuple[bytes, bytes]:
        augmenter = started(models)
        try:
            return await answers(augmenter, text)
        finally:
            await augmenter.close()

    for limit in ("_INLINE_DRAWN_WORDS", "_INLINE_ANSWER_CHARACTERS", "_INLINE_CANDIDATES"):
        monkeypatch.setattr(module, limit, 10**9)
    at_once = asyncio.run(answer())
    everything_on_the_thread(monkeypatch)
    assert asyncio.run(answer()) == at_once
    samples, candidates = map(json.loads, at_once)
    assert samples["id"] == 3
    assert len(samples["samples"]) == (0 if text == "..." else 5)
    assert (candidates["text_b"] is None) == isinstance(text, str)


def test_a_medium_answer_overtakes_long_ones_of_which_two_are_written(
    models: tuple[MaskedLM, GloveVectors], monkeypatch: pytest.MonkeyPatch
) -> None:
    everything_on_the_thread(monkeypatch)
    # LONG has more characters than a medium answer, SHORT does not.
    monkeypatch.setattr(module, "_INLINE_ANSWER_CHARACTERS", PARAMS.n_a * (len(SHORT) + 10) / module._MEDIUM_SIZE)
    monkeypatch.setattr(module, "_INLINE_DRAWN_WORDS", 10**9)
    written, finished, most = set[int](), list[str](), 0
    write = module._write_for_a_turn

    def watched(parts: object, so_far: list[bytes]) -> bool:
        nonlocal most
        goes_on = write(parts, so_far)  # type: ignore[arg-type]
        (written.add if goes_on else written.discard)(id(so_far))
        most = max(most, len(written))
        return goes_on

    async def one(augmenter: Augmenter, name: str, text: str) -> None:
        await augmenter.samples(text, 0, PARAMS, augmenter.ticket())
        finished.append(name)

    async def run() -> None:
        augmenter = started(models)
        try:
            await asyncio.gather(*(one(augmenter, "cached", text) for text in (SHORT, LONG)))
            finished.clear()
            monkeypatch.setattr(module, "_write_for_a_turn", watched)
            long = [asyncio.create_task(one(augmenter, f"long {number}", LONG)) for number in range(5)]
            await asyncio.sleep(0)
            await one(augmenter, "medium", SHORT)
            await asyncio.gather(*long)
        finally:
            await augmenter.close()

    asyncio.run(run())
    assert most == module._LONG_ANSWERS_AT_ONCE + 1
    assert finished.index("medium") <= module._LONG_ANSWERS_AT_ONCE
    assert len(finished) == 6
