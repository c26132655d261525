"""A cluster that was started in another directory than the driver."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.manifest import read_manifest
from shared.storage.store import open_store
from tests.integration.conftest import Job, finished_run, job  # noqa: F401
from tests.support.command import ROOT, bytes_of
from tests.support.ray_nodes import TOKEN_ENVIRONMENT, StartedNodes


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_relative_paths_mean_the_drivers_directory_on_every_node(
    job: Job,  # noqa: F811
    finished_run: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    elsewhere.mkdir()
    here.mkdir()
    for name in ("corpus.tsv", "model", "glove.txt"):
        (here / name).symlink_to(job.folder / name)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(elsewhere)
    nodes = StartedNodes(1)
    try:
        relative = [one.replace(f"{job.folder}/", "") for one in job.common]
        command = [sys.executable, "-m", "augment_service", *relative, "--output", "out", "--address", nodes.address]
        environment = os.environ | TOKEN_ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
        finished = subprocess.run(
            command, cwd=here, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
    finally:
        nodes.close()
    assert finished.returncode == 0, finished.stderr[-3000:]
    # Records of quarantined rows name the input's path, which differs.
    expected = {name: content for name, content in bytes_of(finished_run).items() if name.startswith("shards")}
    found = bytes_of(here / "out")
    assert {name: content for name, content in found.items() if name.startswith("shards")} == expected
    assert list(elsewhere.iterdir()) == []
    assert read_manifest(open_store(str(here / "out"))).inputs[0].path == str(here / "corpus.tsv")
