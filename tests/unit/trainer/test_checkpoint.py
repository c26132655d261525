"""What stands on the disk survives what goes wrong while it is replaced."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from shared.errors import ManifestError, StoreError
from tests.support.command import ROOT
from trainer.checkpoint import append_metrics, keep_metrics, load_checkpoint, open_run, save_checkpoint


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"weights": torch.ones(3)})
    # A real failing write: the process may not write files of over 4 KiB.
    code = (
        "import resource, signal, sys, torch\n"
        "from pathlib import Path\n"
        "from shared.errors import StoreError\n"
        "from trainer.checkpoint import save_checkpoint\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: save_checkpoint(Path(sys.argv[1]), {'weights': torch.zeros(100_000)})\n"
        "except StoreError as error: print(error)\n"
    )
    finished = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=ROOT)
    assert "no space left for" in finished.stdout, finished.stderr
    assert "what was there before is kept" in finished.stdout
    state = load_checkpoint(path, "cpu")
    assert state is not None
    assert torch.equal(state["weights"], torch.ones(3))
    assert [one.name for one in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(StoreError, match="cannot be read"):
        load_checkpoint(tmp_path / "checkpoint.pt", "cpu")
    assert load_checkpoint(tmp_path / "none.pt", "cpu") is None


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    open_run(str(tmp_path), "task", {"lr": 0.1, "seed": 0})
    open_run(str(tmp_path), "task", {"lr": 0.1, "seed": 0})
    with pytest.raises(ManifestError, match=r"another lr \(0.1, now 0.2\)"):
        open_run(str(tmp_path), "task", {"lr": 0.2, "seed": 0})
    with pytest.raises(ManifestError, match="another command"):
        open_run(str(tmp_path), "teacher", {"lr": 0.1, "seed": 0})


def test_metrics_after_the_checkpoint_are_forgotten(tmp_path: Path) -> None:
    for step in range(5):
        append_metrics(tmp_path, {"step": step})
    keep_metrics(tmp_path, 3)
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == [f'{{"step": {step}}}' for step in range(3)]
