"""Fixtures for data that stands beside the repository on the project's own machines and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# The models of the tests are tiny: threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# A first call compiles, imports or meets a busy machine; pytest-timeout finds what hangs.
hypothesis.settings.register_profile("no-deadline", deadline=None)
hypothesis.settings.load_profile("no-deadline")

BESIDE_REPOSITORY = Path(__file__).resolve().parents[2] / "shared"


def _folder(name: str) -> Path:
    folder = BESIDE_REPOSITORY / name
    if not folder.is_dir():
        message = f"needs {name}/ of the project's reference data beside the repository ({folder}), which is not here"
        if os.environ.get("REQUIRE_REFERENCE_DATA") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Small masked LM, vectors, sentences and the exact candidates they must give."""
    return _folder("golden")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """GLUE tasks, corpus and awkward inputs."""
    return _folder("data")


@pytest.fixture(scope="session")
def kuberay_dir() -> Path:
    """KubeRay's custom resource definitions."""
    return _folder("kuberay")
