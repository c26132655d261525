"""What `import augment_service` does to the process."""

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
