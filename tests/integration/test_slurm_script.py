"""The Slurm batch script with a real Ray, in the environment of a job on one node.

It runs in its own process and network namespaces, where it sees no other Ray and cannot occupy ports of the machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.integration.conftest import Job
from tests.support.command import ROOT, bytes_of

ISOLATED = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "--net"]


@pytest.mark.slow
def test_the_batch_script_writes_the_same_bytes_as_a_plain_run(
    job: Job, finished_run: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if subprocess.run([*ISOLATED, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not create namespaces")
    # Ray's sockets need a short path, which pytest's temporary folders are not.
    ray_folder = tempfile.mkdtemp(prefix="ray-")
    request.addfinalizer(lambda: shutil.rmtree(ray_folder, ignore_errors=True))
    program, *options = job.arguments(tmp_path / "out")
    assert program == "run"
    environment = os.environ | {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_CPUS_ON_NODE": "2",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "VENV": str(Path(sys.executable).parents[1]),
        "HEAD_IP": "127.0.0.1",
        "HOME": str(tmp_path),
        "RAY_FOLDER": ray_folder,
        "RAY_LOG": str(tmp_path / "ray.log"),
    }
    script = 'ip link set lo up; bash deploy/slurm/augment.sbatch "$@"; echo "code $?"; pgrep -c raylet; true'
    finished = subprocess.run(
        [*ISOLATED, "bash", "-c", script, "job", *options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    # No process of the job's Ray is left.
    assert finished.stdout.strip().splitlines()[-2:] == ["code 0", "0"], finished.stdout + finished.stderr
    assert bytes_of(tmp_path / "out") == bytes_of(finished_run)
