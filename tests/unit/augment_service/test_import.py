"""What importing the packages does to the process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.command import ROOT


@pytest.mark.parametrize(("given", "found"), [(None, "AVX512_CORE_BF16"), ("AVX512_CORE_AMX", "AVX512_CORE_AMX")])
def test_kernels_whose_sums_depend_on_the_batch_are_off_unless_asked_for(given: str | None, found: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ONEDNN_MAX_CPU_ISA"}
    if given is not None:
        environment["ONEDNN_MAX_CPU_ISA"] = given
    script = "import os, augment_service; print(os.environ['ONEDNN_MAX_CPU_ISA'])"
    said = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == found


@pytest.mark.parametrize("package", ["augment_service", "trainer"])
@pytest.mark.parametrize(
    ("given", "found"),
    [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_threads_wait_briefly_unless_told_otherwise(package: str, given: dict[str, str], found: str) -> None:
    own = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in own} | given
    script = f"import os, {package}; print(os.environ.get('GOMP_SPINCOUNT'))"
    said = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == found
