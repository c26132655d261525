"""Objects in processes of their own: they keep their state, their errors arrive, and their death is one clear error."""

from __future__ import annotations

import os
import signal

import pytest

from augment_service.plan.processes import each, own_processes
from shared.errors import ClusterError, ModelError


class Counter:
    """Counts in its process."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, amount: int) -> int:
        self.total += amount
        return self.total

    def threads(self) -> str:
        return os.environ["OMP_NUM_THREADS"]

    def fail(self) -> None:
        raise ModelError("no such model")

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_each_process_has_an_object_that_keeps_its_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with own_processes(2, Counter, 3) as counters:
        assert each(counters, Counter.add, [(1,), (10,)]) == [1, 10]
        assert each(counters, Counter.add, [(1,), (10,)]) == [2, 20]
        assert each(counters, Counter.threads, [(), ()]) == ["3", "3"]
    assert os.environ["OMP_NUM_THREADS"] == "1"


def test_an_error_arrives_with_its_type_and_the_object_lives_on() -> None:
    with own_processes(1, Counter, 1) as (counter,):
        counter.start(Counter.fail)
        with pytest.raises(ModelError, match="no such model") as caught:
            counter.result()
        assert "in fail" in caught.value.__notes__[0]
        assert each([counter], Counter.add, [(5,)]) == [5]


def test_a_process_that_dies_is_a_cluster_error() -> None:
    with own_processes(1, Counter, 1) as (counter,):
        counter.start(Counter.die)
        with pytest.raises(ClusterError, match=r"most likely because memory ran out.*smaller --batch-tokens"):
            counter.result()
