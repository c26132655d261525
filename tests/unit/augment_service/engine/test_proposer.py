"""The steps of the engine can be taken where no model is loaded, such as in the ingress of Ray Serve."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.command import ROOT

HEAVY = ("torch", "transformers", "tokenizers", "ray", "gensim", "fastapi", "pyarrow")


@pytest.mark.parametrize(
    "module", ["proposer", "inputs", "batches", "lexicon", "vocabulary", "words", "shard_candidates"]
)
def test_taking_steps_loads_no_model_library(module: str) -> None:
    code = (
        f"import sys, augment_service.engine.{module}\n"
        f"sys.exit(', '.join(name for name in {HEAVY} if name in sys.modules) or 0)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (finished.returncode, finished.stderr) == (0, "")
