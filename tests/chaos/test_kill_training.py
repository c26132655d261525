"""The short form of tests.chaos.kill_training: training that is killed at random moments ends with the same bits."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.command import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_training_killed_at_random_moments_ends_with_the_same_bits() -> None:
    # A process of its own: it forks, which needs a process without threads.
    command = [sys.executable, "-m", "tests.chaos.kill_training", "--kills", "5", "--seed", "3"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=540)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "5 kills, " in finished.stdout
    assert ", 0 different" in finished.stdout


def test_the_same_in_a_bucket_whose_requests_fail() -> None:
    command = [sys.executable, "-m", "tests.chaos.kill_training", "--s3", "--kills", "3", "--commands", "teacher"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=540)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "3 kills, " in finished.stdout
    assert ", 0 different" in finished.stdout
