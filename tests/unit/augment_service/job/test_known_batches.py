"""Once a job has the size of its batches, no actor measures it: neither a resumed job's nor one that loads later."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from augment_service.config import RunConfig
from augment_service.job.actors import MlmWorker
from augment_service.job.command import Job, _driver, _plan
from augment_service.job.heartbeat import Heartbeat
from shared.manifest import write_or_check
from tests.support.models import save_random_model
from tests.unit.augment_service.job.test_actor_pool import StubRay


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "rows.csv").write_text("text\na small dog\n")
    model = str(save_random_model("bert-uncased", tmp_path / "model"))
    config = RunConfig(
        input=(str(tmp_path / "rows.csv"),),
        output=str(tmp_path / "out"),
        text_column=("text",),
        mlm=model,
        device="cpu",
        dtype="fp32",
    )
    made = _plan(config)
    # What the driver has written before it starts an actor.
    made.store.put(Heartbeat(made.run).name, b"{}")
    return made


@pytest.mark.parametrize(("known", "expected"), [(None, 1024), (4096, 4096)])
def test_an_actor_takes_the_size_that_its_job_has(job: Job, known: int | None, expected: int) -> None:
    worker = MlmWorker(job.config, job.run, job.name, "actor")
    assert worker.load(known).batch_tokens == expected
    assert worker._engine.batch_tokens == expected


def test_a_resumed_job_starts_with_the_size_in_its_manifest(job: Job) -> None:
    def known() -> Any:
        heartbeat = Heartbeat(job.run, rows=1, shards=1, shards_left=1)
        return _driver(job, {0}, heartbeat, StubRay(), is_own_ray=False)._pool.batch_tokens

    assert known() is None
    write_or_check(job.store, replace(job.manifest, models={"mlm": {"batch_tokens": 4096}}))
    assert known() == 4096
