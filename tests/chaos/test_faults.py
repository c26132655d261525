"""Faults of devices, models, memory and processes: no row is accused of them, and no byte of the result changes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.integration.conftest import Job, finished_run, job  # noqa: F401
from tests.support.command import ROOT, bytes_of, descendants_of, run_command
from tests.support.models import save_random_model


def fail_device_calls(monkeypatch: pytest.MonkeyPatch, at: int, text: str) -> None:
    """In each worker process, let all model calls from this number on fail."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests" / "support" / "device_fault"), str(ROOT)]))
    monkeypatch.setenv("DEVICE_FAULT_AT", str(at))
    monkeypatch.setenv("DEVICE_FAULT_TEXT", text)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["CUDA error: device-side assert triggered", "something that no list of ours knows"])
def test_a_device_that_breaks_costs_processes_but_no_row(
    job: Job,  # noqa: F811
    finished_run: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
) -> None:
    fail_device_calls(monkeypatch, 12, text)
    output = tmp_path / "out"
    finished = run_command(*job.arguments(output, "--mlm-actors", "2"))
    assert finished.returncode == 0, finished.stderr
    assert "actor_lost" in finished.stderr
    assert text in finished.stderr
    assert bytes_of(output) == bytes_of(finished_run)


@pytest.mark.slow
@pytest.mark.parametrize(("faults", "num_lost"), [("1-1", 0), ("1-2", 1), ("1-\n1-\n1-4", 3)])
def test_vectors_that_fail_for_a_moment_or_for_good_cost_no_row(
    job: Job,  # noqa: F811
    finished_run: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    faults: str,
    num_lost: int,
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests" / "support" / "device_fault"), str(ROOT)]))
    monkeypatch.setenv("VECTOR_FAULTS", str(tmp_path / "faults"))
    (tmp_path / "faults").write_text(faults)
    output = tmp_path / "out"
    finished = run_command(*job.arguments(output, "--mlm-actors", "2"))
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "faults").read_text() == "", "not every fault was taken by a process"
    assert finished.stderr.count("vectors_lost") == num_lost, finished.stderr
    assert bytes_of(output) == bytes_of(finished_run)


@pytest.mark.slow
def test_a_device_that_never_works_ends_the_run(
    job: Job,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The first call is the check while the model loads.
    fail_device_calls(monkeypatch, 2, "CUDA error: an illegal memory access was encountered")
    # 24 deaths at least, each with a model to load, would take minutes.
    fewer = "import sys, augment_service.job.actor_pool as pool; pool.DEATHS_AT_LEAST = 4; import augment_service.cli"
    command = [sys.executable, "-c", f"{fewer}; sys.exit(augment_service.cli.main())"]
    command += job.arguments(tmp_path / "out", "--mlm-actors", "1")
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250, check=False)
    assert finished.returncode == 1
    last = finished.stderr.splitlines()[-1]
    assert "5 actors died in a row, and no shard was finished" in last
    assert "CUDA error: an illegal memory access was encountered" in last
    assert "Traceback" not in finished.stderr
    assert not list((tmp_path / "out").glob("commits/*.json"))


@pytest.mark.slow
def test_a_stopped_actor_is_replaced_and_status_says_stalled_before(
    job: Job,  # noqa: F811
    finished_run: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    output = tmp_path / "out"
    command = [sys.executable, "-m", "augment_service"]
    command += job.arguments(output, "--mlm-actors", "1", "--stall-seconds", "20")
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    stopped: list[int] = []
    try:
        while process.poll() is None and not stopped:
            if len(list(output.glob("commits/*.json"))) >= 2:
                for pid in descendants_of(process.pid):
                    with contextlib.suppress(OSError):
                        if b"MlmWorker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                            os.kill(pid, signal.SIGSTOP)
                            stopped.append(pid)
            time.sleep(0.002)
        assert stopped
        deadline = time.monotonic() + 60
        while "stalled: no progress for" not in (text := run_command("status", str(output)).stdout):
            assert time.monotonic() < deadline, text
            assert process.poll() is None, "the run ended before anyone saw it stall"
        _, err = process.communicate(timeout=120)
    finally:
        for pid in [*stopped, process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == 0, err
    assert "actor_stalled" in err
    assert bytes_of(output) == bytes_of(finished_run)


@pytest.mark.slow
def test_actors_that_rays_memory_monitor_kills_are_replaced_within_bounds(
    job: Job,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    finished = run_command(*job.arguments(tmp_path / "out", "--mlm-actors", "1"))
    assert finished.returncode in (0, 1), finished.stderr
    assert "this is a bug" not in finished.stderr
    assert "actor_lost" in finished.stderr or "vectors_lost" in finished.stderr
    if finished.returncode:
        assert re.search(r"actors died in a row, and no shard was finished.*memory", finished.stderr.splitlines()[-1])


def test_a_weight_that_is_not_finite_ends_the_run_before_any_shard(job: Job, tmp_path: Path) -> None:  # noqa: F811
    folder = save_random_model("bert-uncased", tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("encoder.layer.1.output.dense.weight"))
    weights[name][3, 5] = torch.tensor(float("nan"))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    arguments = job.arguments(tmp_path / "out", "--json")
    arguments[arguments.index("--mlm") + 1] = str(folder)
    finished = run_command(*arguments)
    assert finished.returncode == 1
    last = finished.stderr.splitlines()[-1]
    assert f"1 of 1536 weights in {name} are NaN or infinite" in last
    assert not list((tmp_path / "out").glob("commits/*.json"))


def test_a_corpus_that_is_mostly_unusable_ends_the_run(job: Job, tmp_path: Path) -> None:  # noqa: F811
    corpus = tmp_path / "corpus.tsv"
    rows = [f"a good movie {row}\t1\tkept" if row % 4 == 0 else "one column" for row in range(160)]
    corpus.write_text("\n".join(["sentence\tlabel\tnote", *rows]) + "\n", encoding="utf-8")
    arguments = job.arguments(tmp_path / "out", "--mlm-actors", "1")
    arguments[arguments.index("--input") + 1] = str(corpus)
    finished = run_command(*arguments)
    assert finished.returncode == 1
    assert "--max-quarantine 0.5 allows; the first reasons: 1 columns, 3 expected; " in finished.stderr.splitlines()[-1]
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    allowed = run_command(*arguments, "--max-quarantine", "0.8", "--json")
    assert allowed.returncode == 0, allowed.stderr
    assert json.loads(allowed.stdout)["quarantined"] == 120
