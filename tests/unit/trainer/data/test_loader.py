"""The loader over plain text: a token budget, and the same steps for any split, process or interruption."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.distillation import VOCABULARY, text_source
from trainer.data.budget import Epochs, Tokens
from trainer.data.loader import Cursor, Loader, Step
from trainer.mlm.masking import MaskedBatch, MaskedSource, Masking

LINES = [3 + 7 * line % 40 for line in range(400)]


def loader_of(total: int = 25_000, **options: Any) -> Loader[MaskedBatch]:
    text = text_source(LINES, max_length=32, batch_size=2, seed=3)
    masking = Masking(vocabulary=VOCABULARY, probability=0.3, max_length=32, seed=3)
    source = MaskedSource(text=text, masking=masking)
    return Loader(source=source, budget=Tokens(total=total), num_processes=options.pop("processes", 0), **options)


def content(step: Step[MaskedBatch]) -> list[Any]:
    return [(part.ids.tolist(), part.positions.tolist(), part.labels.tolist()) for part in step.parts]


def test_a_token_budget_ends_with_the_first_step_that_reaches_it() -> None:
    steps = list(loader_of().steps(Cursor()))
    assert steps[-1].after.tokens >= 25_000 > steps[-1].before.tokens
    assert [step.before.step for step in steps] == list(range(len(steps)))
    assert sum(step.num_tokens for step in steps) == steps[-1].after.tokens
    assert steps[-1].before.epoch >= 2


def test_resuming_at_any_step_gives_the_same_masks() -> None:
    steps = list(loader_of().steps(Cursor()))
    for number in range(0, len(steps), 61):
        rest = list(loader_of().steps(steps[number].before))
        assert [content(step) for step in rest] == [content(step) for step in steps[number:]]
    assert list(loader_of().steps(steps[-1].after)) == []


@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (1, 3), (2, 2)])
def test_ranks_and_parts_split_the_sequences_of_every_step(world: int, accumulate: int) -> None:
    whole = list(loader_of(5000).steps(Cursor()))
    ranks = [
        list(loader_of(5000, rank=rank, world=world, accumulate=accumulate).steps(Cursor())) for rank in range(world)
    ]
    for number, step in enumerate(whole):
        parts = [part for rank in ranks for part in rank[number].parts]
        assert sum(part.target_share for part in parts) == pytest.approx(float(bool(step.parts)))
        assert all(rank[number].after == step.after for rank in ranks)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_a_loader_process_does_not_change_the_steps() -> None:
    alone = list(loader_of(8000).steps(Cursor()))
    ahead = list(loader_of(8000, processes=1).steps(Cursor()))
    assert [content(step) for step in ahead] == [content(step) for step in alone]


def test_budgets_tell_the_share_that_is_done() -> None:
    assert Epochs(total=2.5).share(1.25, 7) == 0.5
    assert Epochs(total=2.5).num_epochs == 3
    assert Epochs(total=2.5).is_spent(2.5, 0)
    assert Tokens(total=200).share(9.0, 50) == 0.25
    assert not Tokens(total=200).is_spent(9.0, 199)
