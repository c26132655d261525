"""`ray job submit` on a cluster started with `ray start`, with and without a token: stop, submit again, refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from augment_service.job.metrics import JOB_METRICS
from tests.chaos.storm import prepare
from tests.integration.conftest import Job
from tests.support.command import ROOT, bytes_of, run_command
from tests.support.ray_nodes import TOKEN, StartedNodes
from tests.support.single_process import result_of


@pytest.fixture(params=["token", "disabled"])
def head(request: pytest.FixtureRequest) -> Iterator[StartedNodes]:
    nodes = StartedNodes(0, num_head_cpus=2, mode=request.param)
    yield nodes
    nodes.close()


def ray_job(head: StartedNodes, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `ray job …` with the cluster's token."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "job", *arguments]
    environment = head.environment | {"RAY_API_SERVER_ADDRESS": head.dashboard}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False)


def submit(head: StartedNodes, name: str, arguments: list[str], *more: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "augment_service"]
    return ray_job(head, "submit", "--submission-id", name, "--working-dir", ".", *more, "--", *program, *arguments)


def stop(head: StartedNodes, name: str) -> None:
    """Do what `ray job stop` does, but at once: the command takes longer to start than the job to finish."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    request = Request(f"{head.dashboard}/api/jobs/{name}/stop", method="POST", headers=headers)
    assert json.load(urlopen(request, timeout=60)) == {"stopped": True}
    wait_for(lambda: "STOPPED" in ray_job(head, "status", name).stdout.upper())


def wait_for(is_so: Callable[[], bool], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_submit_stop_and_submit_again(
    head: StartedNodes, job: Job, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    commits = output / "commits"
    if head.environment["RAY_AUTH_MODE"] == "disabled":
        finished = submit(head, "only", job.arguments(output))
        assert finished.returncode == 0, finished.stdout + finished.stderr
        assert bytes_of(output) == bytes_of(finished_run)
        return
    long_job, reference = prepare(tmp_path, 1600)
    arguments = long_job.arguments(output, "--log-format", "json")
    started = submit(head, "first", arguments, "--no-wait")
    assert started.returncode == 0, started.stderr
    wait_for(lambda: commits.is_dir() and len(list(commits.iterdir())) >= 3)
    stop(head, "first")
    done = len(list(commits.glob("*.json")))
    status = run_command("status", str(output))
    # Ray sends SIGKILL three seconds after SIGTERM: the run can only report this if it ended in time.
    assert "stopped" in status.stdout, status.stdout
    assert f"{done} of {1600 // 16} shards" in status.stdout
    again = submit(head, "second", arguments)
    assert again.returncode == 0, again.stdout + again.stderr
    assert result_of(output) == result_of(reference)
    logs = ray_job(head, "logs", "second").stdout
    entries = [json.loads(line) for line in logs.splitlines() if line.startswith("{")]
    (plan,) = [entry for entry in entries if entry["event"] == "plan"]
    assert (plan["committed"], plan["job"]) == (done, "out")
    assert "1,599 rows ->" in logs
    metrics = urlopen(f"http://127.0.0.1:{head.metrics_port}/metrics", timeout=30).read().decode()
    for metric in JOB_METRICS:
        if metric.name not in ("augment_retries_total", "augment_halved_batches_total"):
            suffix = "_bucket" if metric.kind == "histogram" else ""
            assert f"ray_{metric.name}{suffix}{{" in metrics, metric.name
    refusals(head, job, tmp_path / "other", monkeypatch)


def refusals(head: StartedNodes, job: Job, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong token and a missing one give one clear error line each."""
    for mode, token in (("token", TOKEN[::-1]), ("disabled", "")):
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
        monkeypatch.setenv("RAY_AUTH_TOKEN", token)
        refused = run_command(*job.arguments(output, "--address", head.address))
        last = refused.stderr.strip().splitlines()[-1]
        assert refused.returncode == 1
        assert "RAY_AUTH_TOKEN" in last, refused.stderr
        assert "Traceback" not in refused.stderr
    assert not output.exists()
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
