"""A run's folder survives a full disk, and is refused to a different run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from shared.errors import ManifestError, UsageError
from tests.support.command import ROOT
from trainer.config import TaskConfig
from trainer.run_folder import append_metrics, keep_metrics, open_run, write_atomically


def test_a_full_disk_leaves_the_previous_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    write_atomically(path, lambda file: file.write(b"previous"))
    # A real failing write: the process may not write files larger than 4 KiB.
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
    assert "the previous version is kept" in finished.stdout
    assert path.read_bytes() == b"previous"
    assert [one.name for one in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    open_run(str(tmp_path), "task", {"lr": 0.1, "seed": 0})
    open_run(str(tmp_path), "task", {"lr": 0.1, "seed": 0})
    with pytest.raises(ManifestError, match=r"a different lr \(0.1, now 0.2\)"):
        open_run(str(tmp_path), "task", {"lr": 0.2, "seed": 0})
    with pytest.raises(ManifestError, match="a different command"):
        open_run(str(tmp_path), "teacher", {"lr": 0.1, "seed": 0})


@pytest.mark.parametrize(("content", "message"), [("{", "is not valid JSON"), ("[]", "should hold a JSON object")])
def test_a_damaged_configuration_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ManifestError, match=message):
        open_run(str(tmp_path), "task", {})


def test_metrics_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    for step in range(5):
        append_metrics(tmp_path, {"step": step})
    keep_metrics(tmp_path, 3)
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == [f'{{"step": {step}}}' for step in range(3)]


def test_labels_that_no_stage_would_weigh_are_refused() -> None:
    needed = {"task": "SST-2", "augmented": "a", "teacher": "t", "output": "o", "dev": "d"}
    with pytest.raises(UsageError, match="--stages leaves out"):
        TaskConfig.build(needed | {"hard_label_weight": 0.5, "stages": ("intermediate",)})


def test_an_option_that_came_later_has_its_default_in_older_runs(tmp_path: Path) -> None:
    open_run(str(tmp_path), "task", {"lr": 0.1})
    open_run(str(tmp_path), "task", {"lr": 0.1, "hard_label_weight": 0.0})
    with pytest.raises(ManifestError, match="a different hard-label-weight"):
        open_run(str(tmp_path), "task", {"lr": 0.1, "hard_label_weight": 0.5})
