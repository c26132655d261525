"""The driver's loop with a stub of Ray: every death is survived, and what ends a run ends it with its own error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from augment_service.config import RunConfig
from augment_service.job.actor_pool import ActorPool
from augment_service.job.driver import Driver
from augment_service.job.failures import BrokenProcessError
from augment_service.job.heartbeat import Heartbeat
from augment_service.job.scheduler import Scheduler
from augment_service.job.shard_work import ShardWork
from shared.errors import ClusterError, ExpectedError, InputError, ModelError, OutputError, StoreError
from shared.inputs.rows import SourceRow
from shared.shards import Commit, write_shard
from shared.storage.store import open_store
from tests.support.ray_errors import every_ray_error, raised
from tests.unit.augment_service.job.test_actor_pool import MLM, NODE, VECTORS, Reference, StubRay

ROWS = 10
BATCH_TOKENS = 512


class NoMetrics:
    """STUB of RayMetrics."""

    def set(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    add = set


class AnsweringRay(StubRay):
    """STUB of Ray whose actors answer at once: `answer_work` gives the answer of a work call."""

    def __init__(self, answer_work: Callable[[Reference], Any]) -> None:
        super().__init__(1)
        self.answer_work = answer_work

    def wait(self, references: list[Reference], **_: Any) -> tuple[list[Reference], list[Reference]]:
        for one in references:
            if one not in self.answers:
                self.answers[one] = self.answer(one)
        return list(references), []

    def answer(self, reference: Reference) -> Any:
        """What a call answers."""
        fixed = {("MlmWorker", "where"): NODE, ("MlmWorker", "load"): MLM, ("GloveWorker", "load"): VECTORS}
        return fixed[reference.what] if reference.what in fixed else self.answer_work(reference)


class World:
    """A job of some shards with ROWS rows each. `answers` are those of the first calls that work on a shard."""

    def __init__(self, folder: Path, num_shards: int, answers: list[Any], num_bad: int = 0, **options: Any) -> None:
        self.store, self.answers, self.num_bad = open_store(str(folder)), answers, num_bad
        config = RunConfig(input=("x",), output=str(folder), text_column=("t",), mlm_actors=1, **options)
        self.ray = AnsweringRay(self.answer_work)
        pool = ActorPool(
            ray=self.ray, config=config, run="r", job="j", own_ray=False, check_models=lambda _: BATCH_TOKENS
        )
        self.beat = Heartbeat("r", rows=num_shards * ROWS, shards=num_shards, shards_left=num_shards)
        self.driver = Driver(
            ray=self.ray,
            config=config,
            schema=pa.schema([]),
            store=self.store,
            scheduler=Scheduler(self.source(num_shards)),
            pool=pool,
            heartbeat=self.beat,
            metrics=NoMetrics(),  # type: ignore[arg-type]
        )

    def source(self, num_shards: int) -> Iterator[ShardWork]:
        for shard in range(num_shards):
            yield ShardWork(shard, ROWS, [SourceRow(row, "text") for row in range(ROWS - self.num_bad)], [])

    def answer_work(self, reference: Reference) -> Any:
        if reference.what in (("MlmWorker", "work"), ("MlmWorker", "probe")):
            # What the pool says, whatever the actor measured.
            assert reference.arguments[-1] == BATCH_TOKENS != MLM.batch_tokens
        if self.answers:
            return self.answers.pop(0)
        if reference.handle.kind == "GloveWorker" or reference.what[1] == "probe":
            return None
        return self.commit(reference.arguments[0])

    def commit(self, shard: int) -> Commit:
        bad = [
            {"position": row, "where": "line", "reason": f"fault {row}", "raw": ""}
            for row in range(shard * ROWS, shard * ROWS + self.num_bad)
        ]
        return write_shard(self.store, shard, pa.table({"x": [1]}), ROWS - self.num_bad, bad, {})


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_whatever_ray_says_instead_of_an_answer_the_work_is_done_again(tmp_path: Path, is_wrapped: bool) -> None:
    for number, error in enumerate(every_ray_error()):
        world = World(tmp_path / str(number), 4, [raised(error) if is_wrapped else error])
        world.driver.run()
        assert world.beat.shards_left == 0, type(error)
        assert sum(world.beat.retries.values()) >= 1, type(error)
        assert set(world.beat.retries) <= {"actor_lost", "vectors_lost"}


def test_a_broken_process_is_replaced_and_the_run_goes_on(tmp_path: Path) -> None:
    world = World(tmp_path, 4, [raised(BrokenProcessError("CUDA error: device-side assert triggered"))])
    world.driver.run()
    assert world.beat.shards_left == 0
    assert world.beat.retries["broken_process"] >= 1
    assert world.ray.killed[0].kind == "MlmWorker"


def test_processes_that_only_break_end_the_run_with_the_reason(tmp_path: Path) -> None:
    world = World(tmp_path, 40, [raised(BrokenProcessError("CUDA error: device-side assert"))] * 1000)
    with pytest.raises(
        ClusterError, match=r"actors died in a row, and no shard was finished .*CUDA error: device-side assert"
    ):
        world.driver.run()


@pytest.mark.parametrize(
    "error", [ModelError("NaN"), StoreError("gone"), ClusterError("all 8 rows"), ExpectedError("x")]
)
def test_errors_of_our_code_end_the_run_with_their_own_type(tmp_path: Path, error: ExpectedError) -> None:
    with pytest.raises(type(error), match=str(error)):
        World(tmp_path, 4, [raised(error)]).driver.run()


def test_too_many_rows_in_quarantine_end_the_run_with_the_first_reasons(tmp_path: Path) -> None:
    message = r"60 of 100 rows were quarantined.*--max-quarantine 0\.5.*fault 0; fault 1; fault 2\. "
    world = World(tmp_path / "a", 40, [], num_bad=6)
    with pytest.raises(InputError, match=message):
        world.driver.run()
    assert world.beat.shards_left == 30
    for name, options, num_shards, num_bad in (
        ("b", {"max_quarantine": 0.6}, 40, 6),
        ("c", {}, 40, 5),
        ("d", {}, 9, 9),
    ):
        world = World(tmp_path / name, num_shards, [], num_bad=num_bad, **options)
        world.driver.run()
        assert world.beat.shards_left == 0


def test_without_room_the_run_says_what_is_missing_and_ends_after_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("augment_service.job.driver.NO_ROOM_LOG_SECONDS", 0.05)
    world = World(tmp_path, 1, [], no_room_seconds=0.5)
    monkeypatch.setattr(world.ray, "wait", lambda references, **_: ([], list(references)))
    with pytest.raises(ClusterError, match=r"no actor could start for .*1 actor waiting for resources; .* needs 1 CPU"):
        world.driver.run()
    said = [record for record in caplog.records if record.getMessage() == "no_actor_yet"]
    assert len(said) > 3
    assert "waiting for resources" in said[0].fields["missing"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("planned", [1, 5])
def test_an_input_that_ends_before_the_last_planned_shard_is_an_error_at_once(tmp_path: Path, planned: int) -> None:
    world = World(tmp_path, 3, [])
    world.beat.shards = world.beat.shards_left = 3 + planned
    began = time.monotonic()
    with pytest.raises(OutputError, match=f"no rows for {planned} of the planned shards.*nothing is in flight"):
        world.driver.run()
    assert time.monotonic() - began < 5
    assert world.beat.shards_left == planned
