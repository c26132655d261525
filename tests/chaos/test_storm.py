"""The chaos script in its short form; a row that kills its process; two drivers on one output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.shards import list_commits
from shared.storage.store import open_store
from tests.integration.conftest import NUM_ROWS, Job, finished_run, job  # noqa: F401
from tests.integration.test_job import rows_of
from tests.support.command import ROOT, bytes_of, run_command


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_short_storm_changes_no_byte() -> None:
    # In a separate process, because Ray reads only once per process whether tokens are on.
    command = [sys.executable, "-m", "tests.chaos.storm", "--first-seed", "11", "--kills", "8"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=800)
    assert finished.returncode == 0, finished.stdout + finished.stderr[-4000:]
    assert "files equal to the single-process run" in finished.stdout
    assert "8 kills and stops in all" in finished.stdout


@pytest.mark.slow
def test_a_row_that_kills_its_process_is_quarantined_alone(
    job: Job,  # noqa: F811
    finished_run: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = (job.folder / "corpus.tsv").read_text(encoding="utf-8").splitlines()
    lines[1 + 20] = "A poisonous movie\t0\tkept 20"
    corpus = tmp_path / "corpus.tsv"
    corpus.write_text("\n".join(lines[:49]) + "\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests" / "support" / "poison"), str(ROOT)]))
    output = tmp_path / "out"
    arguments = job.arguments(output, "--mlm-actors", "2")
    arguments[arguments.index("--input") + 1] = str(corpus)
    finished = run_command(*arguments)
    assert finished.returncode == 0, finished.stderr
    quarantined = [
        json.loads(line)
        for path in sorted((output / "quarantine").iterdir())
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert [(one["position"], one["raw"]) for one in quarantined] == [
        (17, "a line with one column"),
        (20, "A poisonous movie"),
    ]
    assert quarantined[1]["reason"] == "the worker process died 3 times on this row alone"
    # Every other row of its shard, and every other shard, is unchanged.
    kept = [row for row in rows_of(finished_run) if row["source_id"] < 48 and row["source_id"] != 20]
    assert rows_of(output) == kept


@pytest.mark.slow
def test_two_drivers_at_once_on_one_output(job: Job, finished_run: Path, tmp_path: Path) -> None:  # noqa: F811
    output = tmp_path / "out"
    command = [sys.executable, "-m", "augment_service", *job.arguments(output, "--mlm-actors", "1")]
    drivers = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    texts = [driver.communicate(timeout=240)[0] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], texts
    assert bytes_of(output) == bytes_of(finished_run)
    assert [commit.shard for commit in list_commits(open_store(str(output)))] == list(range(NUM_ROWS // 8))
