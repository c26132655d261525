"""Training workers through Ray: a refused connection is one clear line; a machine that cannot compute says so first."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import NoReturn

import pytest
import ray

from shared.compute import hardware
from shared.errors import ClusterError, InputError, UsageError
from trainer.config import LoopConfig
from trainer.state import Worker
from trainer.workers import _expected_cause, run_workers, start_run


def never(_config: LoopConfig, _worker: Worker) -> NoReturn:
    raise AssertionError("no worker may start")


def test_a_missing_token_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_options: object) -> NoReturn:
        raise ray.exceptions.AuthenticationError("Authentication token is missing")

    monkeypatch.setattr(ray, "init", refuse)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        config = LoopConfig(output=str(tmp_path), workers=2, address=address)
        with pytest.raises(ClusterError, match=rf"{address} .*RAY_AUTH_TOKEN") as caught:
            run_workers(never, config)
    assert "\n" not in str(caught.value)


def test_the_error_of_a_worker_is_found_inside_rays_own() -> None:
    outer = RuntimeError("Ray failed\nwith details")
    assert str(_expected_cause(outer, 2)) == "a training worker failed: with details"
    outer.worker_failures = {1: InputError("no such file")}  # type: ignore[attr-defined]
    assert str(_expected_cause(outer, 2)) == "no such file"


def test_a_dead_worker_is_named_although_the_others_failed_too() -> None:
    outer = RuntimeError("Training failed due to worker errors:\nlong text of Ray")
    gloo = RuntimeError("Read error [127.0.0.1]:1667: Connection reset by peer. This is typically caused by ... GLHF!")
    outer.worker_failures = {0: gloo, 1: ray.exceptions.RayActorError()}  # type: ignore[attr-defined]
    assert str(_expected_cause(outer, 2)).startswith("worker 1 of 2 (counting from 0) died: ")
    outer = RuntimeError(f"Training failed due to worker errors:\n{gloo}")
    outer.worker_failures = {0: gloo}  # type: ignore[attr-defined]
    assert str(_expected_cause(outer, 2)).startswith("a worker lost its connection to another one")


def test_bf16_without_kernels_is_refused_before_the_folder_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "has_bf16_kernels", lambda: False)
    output = tmp_path / "output"
    config = LoopConfig(output=str(output), device="cpu", dtype="bf16")
    with pytest.raises(UsageError, match="--dtype bf16"), start_run("task", config):
        pass
    assert not output.exists()
