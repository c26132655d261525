"""The small models of the tests are the same in every process, so that a test's figures are, too."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import ROOT
from tests.support.models import KINDS, save_random_model

OF_ANOTHER_KIND = {"distilbert", "electra", "bert-chinese", "modernbert"}
"""Their tokenizers are made like bert-uncased's or roberta's."""


@pytest.mark.parametrize("kind", sorted(set(KINDS) - OF_ANOTHER_KIND))
def test_another_process_makes_the_same_model(kind: str, tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from tests.support.models import save_random_model as save; "
    code += "save(sys.argv[1], Path(sys.argv[2]))"
    subprocess.run([sys.executable, "-c", code, kind, str(tmp_path / "theirs")], cwd=ROOT, check=True, timeout=120)
    save_random_model(kind, tmp_path / "ours")
    ours, theirs = (
        {file.name: _digest(file) for file in sorted((tmp_path / one).iterdir())} for one in ("ours", "theirs")
    )
    assert ours == theirs
    assert "tokenizer.json" in ours


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
