"""Settings for all tests, and fixtures for reference data that exists only on the project's own machines."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import hypothesis
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# The test models are tiny: more threads would only add synchronisation.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# What a test leaves in a cache must not reach another run of the tests, nor the user.
os.environ["TRAINER_CACHE"] = tempfile.mkdtemp(prefix="cache-of-tests-")
atexit.register(shutil.rmtree, os.environ["TRAINER_CACHE"], ignore_errors=True)
# First calls compile or import, and the machine may be busy: no deadline. pytest-timeout catches tests that hang.
# The suite runs the same examples everywhere, so that it fails for a change and not by chance; `make explore` runs the
# property tests on new random examples.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True, database=None, print_blob=True)
hypothesis.settings.register_profile("explore", deadline=None, derandomize=False, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))

REFERENCE_DATA = Path(__file__).resolve().parents[2] / "shared"


def _folder(name: str) -> Path:
    folder = REFERENCE_DATA / name
    if not folder.is_dir():
        message = f"needs the reference data {name}/ at {folder}"
        if os.environ.get("REQUIRE_REFERENCE_DATA") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Small masked LM, vectors, sentences, and the exact candidates expected for them."""
    return _folder("golden")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """GLUE tasks, corpus and awkward inputs."""
    return _folder("data")


@pytest.fixture(scope="session")
def kuberay_dir() -> Path:
    """KubeRay's custom resource definitions."""
    return _folder("kuberay")
