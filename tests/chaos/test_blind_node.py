"""A node of the cluster that does not see the output's disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import Job, finished_run, job  # noqa: F401
from tests.support.command import ROOT, bytes_of
from tests.support.ray_nodes import TOKEN_ENVIRONMENT, StartedNodes

NAMESPACES = ["unshare", "--mount", "--uts"]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_blind_node_is_left_out_and_a_cluster_of_blind_nodes_is_refused_before_the_first_shard(
    job: Job,  # noqa: F811
    finished_run: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    if subprocess.run([*NAMESPACES, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not create namespaces")
    disk = tmp_path / "disk"
    disk.mkdir()
    hide = f'hostname blind && mount -t tmpfs none {disk} && exec "$@"'
    nodes = StartedNodes(0)

    def run(output: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "augment_service", *job.arguments(output, "--address", nodes.address)]
        environment = os.environ | TOKEN_ENVIRONMENT
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180, check=False
        )

    try:
        nodes.add([*NAMESPACES, "sh", "-c", hide, "sh"])
        refused = run(disk / "refused")
        nodes.add()
        finished = run(disk / "out")
    finally:
        nodes.close()
    assert refused.returncode == 1, refused.stderr[-3000:]
    assert f"node blind does not see the driver's --output {disk}/refused" in refused.stderr.splitlines()[-1]
    assert not list((disk / "refused").glob("shards/*"))
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert bytes_of(disk / "out") == bytes_of(finished_run)
