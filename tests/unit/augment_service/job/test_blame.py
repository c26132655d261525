"""Rows are accused only while the process works: device errors, broken processes, and shards whose rows all fail."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
import ray
import torch
from hypothesis import given
from hypothesis import strategies as st

from augment_service.config import RunConfig
from augment_service.engine.batch_guard import BatchGuard
from augment_service.job.actors import MlmWorker
from augment_service.job.blame import ROWS_TO_JUDGE, Judge, is_device_error
from augment_service.job.failures import BrokenProcessError, cause_of, is_rays_own
from augment_service.job.heartbeat import Heartbeat
from shared.errors import ClusterError, ExpectedError, ModelError, OverloadError
from shared.storage.store import open_store
from tests.support.models import save_random_model

DEVICE_ERRORS = [
    RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("cuBLAS error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(handle, opa)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
    torch.AcceleratorError("an illegal memory access was encountered"),
]


class Engine:
    """Fails on bad rows, and on everything from the call numbered `breaks_at` on."""

    def __init__(self, bad: Sequence[int] = (), breaks_at: int | None = None, error: Exception | None = None) -> None:
        self.bad, self.breaks_at, self.calls = set(bad), breaks_at, 0
        self.error = error or RuntimeError("sticky")

    def compute(self, rows: Sequence[int]) -> None:
        self.calls += 1
        if self.breaks_at is not None and self.calls >= self.breaks_at:
            raise self.error
        for row in rows:
            if row in self.bad:
                raise ValueError(f"row {row}")

    def judge(self) -> Judge[int]:
        return Judge(self.compute, lambda: self.compute([]))


@given(st.integers(1, 20).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), max_size=n - 1))))
def test_exactly_the_bad_rows_are_accused(case: tuple[int, set[int]]) -> None:
    num_rows, bad = case
    failed = Engine([*bad]).judge().failures(range(num_rows), ValueError("together"))
    assert failed == {row: f"ValueError: row {row}" for row in bad}


@given(st.sets(st.integers(0, 19)), st.integers(1, 30))
def test_a_process_that_breaks_at_any_moment_accuses_no_row(bad: set[int], breaks_at: int) -> None:
    engine = Engine([*bad], breaks_at)
    outcome: set[int] | Exception
    try:
        outcome = set(engine.judge().failures(range(20), ValueError("together")))
    except (BrokenProcessError, ClusterError) as error:
        outcome = error
    # It broke, or it did not matter; every row may have been bad.
    assert isinstance(outcome, BrokenProcessError) or outcome == bad or bad == set(range(20))


@given(st.sets(st.integers(0, 19)), st.sets(st.integers(0, 19)), st.integers(0, 3))
def test_a_failure_that_does_not_repeat_accuses_no_row(bad: set[int], unlucky: set[int], num_checks: int) -> None:
    """Each unlucky row fails once, and so does one of the first checks, which blames the process."""
    pending, checks = set(unlucky), 0

    def compute(rows: Sequence[int]) -> None:
        for row in rows:
            if row in bad:
                raise ValueError(f"row {row}")
            if row in pending:
                pending.remove(row)
                raise OSError("a moment's trouble")

    def check() -> None:
        nonlocal checks
        checks += 1
        if checks == num_checks:
            raise OSError("a moment's trouble")

    try:
        failed = set(Judge(compute, check).failures(range(20), OSError("together")))
    except (BrokenProcessError, ClusterError):
        return
    assert failed == bad


def test_a_good_row_that_needs_no_model_does_not_hide_a_broken_model() -> None:
    broken = RuntimeError("something that no list of ours knows")

    def compute(rows: Sequence[int]) -> None:
        if any(rows):
            raise broken

    def check() -> None:
        raise broken

    with pytest.raises(BrokenProcessError):
        Judge(compute, check).failures(range(20), broken)


@pytest.mark.parametrize("error", DEVICE_ERRORS)
def test_a_device_error_is_the_processs_at_once(error: Exception) -> None:
    assert is_device_error(error)
    engine = Engine()
    with pytest.raises(BrokenProcessError):
        engine.judge().failures(range(20), error)
    assert engine.calls == 0
    with pytest.raises(BrokenProcessError):
        Engine(breaks_at=5, error=error).judge().failures(range(20), ValueError("together"))
    with pytest.raises(BrokenProcessError):
        engine.judge().check_process(error)


@pytest.mark.parametrize("error", [ValueError("CUDA error"), RuntimeError("shapes differ"), KeyError("x")])
def test_other_errors_are_not_the_devices(error: Exception) -> None:
    assert not is_device_error(error)
    Engine().judge().check_process(error)


def test_a_shard_whose_rows_all_fail_ends_the_run_with_the_first_reasons() -> None:
    rows = range(ROWS_TO_JUDGE)
    with pytest.raises(ClusterError, match=r"all 8 rows of a shard: ValueError: row 0; ValueError: row 1; "):
        Engine(rows).judge().failures(rows, ValueError("together"))
    # A few bad rows at the end of an input prove nothing.
    assert len(Engine(rows).judge().failures(rows[:-1], ValueError("together"))) == ROWS_TO_JUDGE - 1


@pytest.mark.parametrize("error", [ModelError("NaN"), ray.exceptions.OutOfMemoryError("node"), MemoryError()])
def test_errors_that_are_about_no_row_are_passed_on(error: Exception) -> None:
    expected = OverloadError if isinstance(error, MemoryError) else type(error)
    with pytest.raises(expected):
        Engine().judge().failures(range(3), error)
    with pytest.raises(expected):
        Engine(breaks_at=2, error=error).judge().failures(range(3), ValueError("together"))


def test_what_ray_raises_itself_is_told_from_what_our_code_raised() -> None:
    def task(cause: Exception) -> Exception:
        error: Exception = ray.exceptions.RayTaskError("work", "Traceback", cause).as_instanceof_cause()
        return error

    lost = ray.exceptions.NodeDiedError("gone")
    for error in (lost, task(lost), task(task(lost)), ray.exceptions.GetTimeoutError("x")):
        assert is_rays_own(ray, error)
    for error in (ValueError("x"), task(ValueError("x")), task(task(ExpectedError("x")))):
        assert not is_rays_own(ray, error)
    assert str(cause_of(task(task(ExpectedError("x"))))) == "x"

    class UnpicklableError(Exception):
        def __reduce__(self) -> str:
            raise TypeError("no")

    assert not is_rays_own(ray, task(UnpicklableError()))


class NoNeighbours:
    def nearest(self, words: Sequence[str], k: int) -> dict[str, tuple[tuple[str, float], ...]]:
        return dict.fromkeys(words, ())


def test_the_check_of_a_worker_runs_its_masked_lm_even_if_no_word_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_random_model("bert-uncased", tmp_path / "model")
    config = RunConfig(
        input=(str(tmp_path / "input.tsv"),),
        text_column=("sentence",),
        mlm=str(model),
        glove="none",
        output=str(tmp_path / "out"),
        dtype="fp32",
    )
    # What the driver has written before it starts an actor.
    open_store(config.output).put(Heartbeat("run").name, b"{}")
    worker = MlmWorker(config, "run", "job", "actor")
    worker.load()
    worker._engine.neighbours = NoNeighbours()
    judge = worker._judge(pa.schema([]))
    judge.check_process(ValueError("row"))

    def fail(*_: object) -> None:
        raise RuntimeError("something that no list of ours knows")

    monkeypatch.setattr(BatchGuard, "run", fail)
    with pytest.raises(BrokenProcessError, match="no list of ours"):
        judge.check_process(ValueError("row"))
