"""The scripts in examples/ run as they are, each in a process of its own, and print what they promise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.command import ROOT

EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))


def run_example(name: str) -> str:
    """Run one example to its end; returns what it printed on stdout."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "examples" / name)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return finished.stdout


def test_augment_texts_prints_three_samples_of_each_text() -> None:
    lines = run_example("augment_texts.py").splitlines()
    samples = [line for line in lines if line.startswith("  ")]
    assert len(lines) == 8
    assert len(samples) == 6
    assert all(" -> " in sample for sample in samples)


@pytest.mark.slow
def test_read_shards_prints_the_sources_and_their_samples() -> None:
    rows = [line.split(maxsplit=3) for line in run_example("read_shards.py").splitlines() if line[:1].isdigit()]
    rows = [row for row in rows if len(row) == 4 and row[1].isdigit()]
    assert [row[:3] for row in rows if row[0] == "0"] == [["0", str(n), "5"] for n in range(4)]
    assert {row[0] for row in rows} == {"0", "1", "2", "3"}


@pytest.mark.slow
def test_train_student_ends_with_two_predictions() -> None:
    lines = run_example("train_student.py").splitlines()
    predictions = [line.split() for line in lines[-2:]]
    assert [one[0] for one in predictions] == ["1", "0"]


@pytest.mark.slow
def test_call_service_prints_samples_and_candidates() -> None:
    lines = run_example("call_service.py").splitlines()
    assert len([line for line in lines if line.endswith(")]")]) == 3
    assert any(line.startswith("gripping: ") for line in lines)


def test_every_example_is_tested() -> None:
    assert EXAMPLES == ["augment_texts.py", "call_service.py", "read_shards.py", "train_student.py"]
