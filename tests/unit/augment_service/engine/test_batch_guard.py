"""When memory runs out, batches are retried, then halved. One test sets a real limit, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from augment_service.engine.batch_guard import BatchGuard, is_out_of_memory
from augment_service.engine.batches import ModelInput
from augment_service.engine.masked_lm import MaskedLM
from shared.shards import list_commits, write_shard
from shared.storage.store import open_store
from tests.support.command import ROOT
from tests.support.hardware import CPU_DTYPES
from tests.support.models import save_random_model

REAL_LIMIT = """
import resource, torch
from augment_service.engine.batch_guard import BatchGuard

def compute(inputs):
    return torch.ones(len(inputs), 64 << 20, dtype=torch.uint8)[:, :4].clone()  # 64 MiB per input

torch.ones(4)
in_use = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (in_use + (300 << 20), resource.RLIM_INFINITY))
guard = BatchGuard()
result = guard.run(compute, list(range(10)))
assert result.shape == (10, 4)
assert guard.batches == 1
print(guard.halved)
"""


class Limited:
    """Doubles its inputs, at most `room` at a time. The first `spells` calls fail whatever their size."""

    def __init__(self, room: int, spells: int = 0) -> None:
        self.room, self.spells = room, spells
        self.calls: list[int] = []

    def __call__(self, inputs: Sequence[int]) -> Tensor:
        self.calls.append(len(inputs))
        if self.spells:
            self.spells -= 1
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        if len(inputs) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.tensor(inputs) * 2


def test_the_same_batch_is_tried_again_before_it_is_halved() -> None:
    guard, compute = BatchGuard(), Limited(8, spells=1)
    assert guard.run(compute, range(8)).tolist() == [2 * one for one in range(8)]
    assert (compute.calls, guard.halved, guard.batches) == ([8, 8], 0, 1)


def test_halves_keep_the_order_and_are_counted() -> None:
    observed: list[float] = []
    guard, compute = BatchGuard(observed.append), Limited(2)
    assert guard.run(compute, range(7)).tolist() == [2 * one for one in range(7)]
    assert max(compute.calls[2:]) <= 4
    assert guard.halved == 3
    assert len(observed) == guard.batches == 1


def test_an_input_that_is_too_large_and_other_errors_are_raised() -> None:
    with pytest.raises(torch.OutOfMemoryError) as caught:
        BatchGuard().run(Limited(0), range(3))
    assert is_out_of_memory(caught.value)

    def broken(_inputs: Sequence[int]) -> Tensor:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        BatchGuard().run(broken, range(3))


def test_a_batch_whose_real_allocation_fails_is_halved() -> None:
    finished = subprocess.run([sys.executable, "-c", REAL_LIMIT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert int(finished.stdout.splitlines()[-1]) >= 1


def test_a_shard_with_halved_batches_may_differ_and_the_first_commit_wins(tmp_path: Path) -> None:
    import pyarrow as pa

    store = open_store(str(tmp_path))
    first = write_shard(store, 0, pa.table({"score": [0.1]}), 1, [], {})
    second = write_shard(store, 0, pa.table({"score": [0.1000001]}), 1, [], {"halved_batches": 1})
    assert second == first
    assert list_commits(store) == [first]
    assert store.list("shards") == [first.file]


@pytest.mark.parametrize("dtype", CPU_DTYPES)
def test_halved_batches_of_a_real_model_give_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    model = MaskedLM.load(str(save_random_model("bert-uncased", tmp_path / "model")), "cpu", dtype)
    inputs = [ModelInput((2, *range(5, 6 + size), 4, 3), (size // 2 + 1,), size + 4) for size in range(20)]
    whole = model.rank(inputs, [range(20)], 8, None)
    compute = model._states

    def with_little_memory(part: Sequence[ModelInput]) -> Tensor:
        if len(part) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(part)

    monkeypatch.setattr(model, "_states", with_little_memory)
    halved = model.rank(inputs, [range(20)], 8, None)
    assert model.guard.halved == 7
    for one, other in zip(whole, halved, strict=True):
        assert one.ids.tobytes() == other.ids.tobytes()
        assert one.scores.tobytes() == other.scores.tobytes()
