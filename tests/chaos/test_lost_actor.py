"""An actor that is killed while it works costs time, but changes no byte of the result."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.conftest import Job, finished_run, job  # noqa: F401
from tests.support.command import bytes_of, killing_workers, run_command


@pytest.mark.slow
def test_killed_actors_change_no_byte(job: Job, finished_run: Path, tmp_path: Path) -> None:  # noqa: F811
    output = tmp_path / "out"
    with killing_workers(
        lambda title: b"MlmWorker.work" in title,
        lambda killed: len(list(output.glob("commits/*.json"))) >= 2 + 6 * killed,
        count=2,
    ) as killed:
        finished = run_command(*job.arguments(output, "--mlm-actors", "2"))
    assert finished.returncode == 0, finished.stderr
    assert killed
    assert bytes_of(output) == bytes_of(finished_run)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [b"job.feeders", b"MlmWorker.work"])
def test_killed_workers_that_feed_the_model_change_no_byte(
    job: Job,  # noqa: F811
    finished_run: Path,  # noqa: F811
    tmp_path: Path,
    victim: bytes,
) -> None:
    output = tmp_path / "out"
    with killing_workers(
        lambda title: victim in title,
        lambda killed: len(list(output.glob("commits/*.json"))) >= 2 + 6 * killed,
        count=2,
    ) as killed:
        finished = run_command(*job.arguments(output, "--mlm-actors", "2", "--workers-per-gpu", "2"))
    assert finished.returncode == 0, finished.stderr
    assert killed
    assert bytes_of(output) == bytes_of(finished_run)


@pytest.mark.slow
def test_vectors_that_die_are_replaced_and_no_row_is_convicted(
    job: Job,  # noqa: F811
    finished_run: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    output = tmp_path / "out"
    # As soon as they have loaded, before the first shards look anything up.
    with killing_workers(
        lambda title: title.split(b"\0")[0] == b"ray::GloveWorker",
        lambda _: (output / "manifest.json").exists(),
        count=1,
    ) as killed:
        finished = run_command(*job.arguments(output, "--mlm-actors", "2"))
    assert finished.returncode == 0, finished.stderr
    assert killed
    assert bytes_of(output) == bytes_of(finished_run)
