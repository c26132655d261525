"""Which weights of a run are kept: the best, or the latest that are as good within the noise of the dev rows."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from trainer.checkpoint import read_checkpoint, write_checkpoint
from trainer.config import LoopConfig
from trainer.loop import keep_scores
from trainer.recipe import Scores, Stage
from trainer.record import Recorder
from trainer.state import Best, Run, Worker

STAGE = cast(Stage[Any], SimpleNamespace(name="prediction"))
SCORES = st.lists(st.integers(0, 20).map(lambda number: number / 20), min_size=1, max_size=12)


def run_in(folder: Path) -> Run:
    worker = Worker(device="cpu", dtype=torch.float32)
    return Run(config=LoopConfig(output=str(folder)), folder=folder, worker=worker, trained={"model": nn.Linear(1, 1)})


def kept(scores: Sequence[float], noise: float, interrupted_after: int | None = None) -> tuple[Best, float]:
    """The best of a run with these scores at steps 0, 1, ..., and the step of its stored weights."""
    with tempfile.TemporaryDirectory() as name:
        run = run_in(Path(name))
        recorder = Recorder(run)
        for step, score in enumerate(scores):
            run.state.step = step
            keep_scores(
                run, STAGE, recorder, Scores(name="dev", values={"accuracy": score}, selection=score, noise=noise)
            )
            if step == interrupted_after:
                write_checkpoint(run, None)
                saved = read_checkpoint(Path(name) / "checkpoint.pt", "cpu")
                assert saved is not None
                run.state = saved.state
        recorder.close()
        assert run.state.best is not None
        stored = torch.load(Path(name) / "best.pt", weights_only=True)
    return run.state.best, stored["step"]


@given(SCORES)
def test_without_noise_the_first_of_the_best_is_kept(scores: list[float]) -> None:
    best, stored = kept(scores, 0.0)
    assert best.step == stored == scores.index(max(scores))
    assert best.score == best.to_beat == max(scores)


@given(SCORES, st.sampled_from([0.05, 0.12, 0.4]), st.integers(0, 11))
@example([0.75, 0.7, 0.65, 0.6], 0.06, 1)
def test_with_noise_the_last_that_is_near_the_best_is_kept_also_after_an_interruption(
    scores: list[float], noise: float, interrupted_after: int
) -> None:
    best, stored = kept(scores, noise, interrupted_after)
    highest = max(scores)
    near = [step for step, score in enumerate(scores) if score >= highest - noise and step >= scores.index(highest)]
    assert best.step == stored == near[-1]
    assert best.score == scores[near[-1]] == best.metrics["accuracy"]
    # Weights that are slightly worse again and again do not lower what the next ones are compared with.
    assert best.to_beat == highest
