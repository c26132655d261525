"""Training commands on a machine that cannot compute as requested."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.compute import hardware
from shared.errors import UsageError
from trainer.mlm.config import MlmConfig
from trainer.mlm.train import run_command


def test_bf16_without_kernels_is_refused_before_anything_is_read_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "has_bf16_kernels", lambda: False)
    output = tmp_path / "output"
    settings = {"encoder": "embedded", "corpus": [str(tmp_path / "missing.txt")], "output": str(output)}
    with pytest.raises(UsageError, match="--dtype bf16"):
        run_command(MlmConfig.build(settings | {"dtype": "bf16"}))
    assert not output.exists()
