"""Start and end of the process: models that cannot be loaded, file descriptors, health checks, shutdown."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from augment_service.service.loading import is_path
from tests.support.command import ROOT, run_command
from tests.support.service import TOKEN, Service


def long_request(number: int) -> dict[str, object]:
    text = "the quick brown fox jumps over a lazy dog " * 12
    return {"texts": [f"{text}{number} {index}" for index in range(60)], "n_a": 1, "words": "all", "context": "pair"}


def test_a_missing_model_folder_or_file_ends_the_process_at_once(tmp_path: Path) -> None:
    for option, name in (("--mlm", "folder"), ("--glove", "file")):
        gone = tmp_path / "gone"
        finished = run_command("serve", "--port", "0", option, str(gone))
        assert finished.returncode == 1
        assert f"{option} {gone}: no such {name}" in finished.stderr
        assert "Traceback" not in finished.stderr


def test_a_folder_that_holds_no_model_ends_the_process(tmp_path: Path) -> None:
    finished = run_command("serve", "--port", "0", "--mlm", str(tmp_path))
    assert finished.returncode == 1
    assert f"--mlm {tmp_path}" in finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.stderr


@pytest.mark.slow
def test_a_hub_that_fails_is_asked_again_before_the_process_ends(tmp_path: Path) -> None:
    # Offline, nobody would be asked.
    online = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    environment = os.environ | online
    command = [sys.executable, "-m", "augment_service", "serve", "--port", "0", "--mlm", "someone/some-model"]
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert finished.returncode == 1, finished.stderr
    assert finished.stderr.count("model_not_loaded_yet") == 3
    assert "--mlm someone/some-model" in finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.stderr


def test_only_a_hub_id_may_be_no_path() -> None:
    assert not any(map(is_path, ("bert-base-uncased", "google-bert/bert-base-uncased")))
    assert all(map(is_path, ("/models/bert", "./bert", "../bert", "~/bert", "runs/one/model", "bert/")))


def test_connections_are_capped_below_the_limit_of_open_files(model_options: list[str], tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
    try:
        raised = Service(*model_options, log=tmp_path / "raised.txt")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with raised:
        assert "connections_capped" not in raised.log
        limits = Path(f"/proc/{raised.process.pid}/limits").read_text(encoding="utf-8")
        assert str(hard) in next(line for line in limits.splitlines() if line.startswith("Max open files")).split()[3]
    command = f"ulimit -n 500; exec {sys.executable} -m augment_service serve --port 0 {' '.join(model_options)}"
    log = tmp_path / "capped.txt"
    with log.open("wb") as file:
        process = subprocess.Popen(["bash", "-c", command], cwd=ROOT, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + 60
        while "listening" not in log.read_text(encoding="utf-8") and time.monotonic() < deadline:
            time.sleep(0.1)
        while "connections_capped" not in log.read_text(encoding="utf-8") and time.monotonic() < deadline:
            time.sleep(0.1)
        assert "max_connections=250 wanted=2000" in log.read_text(encoding="utf-8")
    finally:
        process.kill()
        process.wait()


def test_during_the_drain_delay_connections_are_accepted_and_readyz_says_503(
    model_options: list[str], tmp_path: Path
) -> None:
    with Service(*model_options, "--drain-delay", "2", log=tmp_path / "log.txt") as service:
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert httpx.get(f"{service.url}/readyz").status_code == 503
        assert httpx.get(f"{service.url}/readyz").json()["status"] == "draining"
        assert httpx.post(f"{service.url}/v1/augment", json={"texts": ["the cat"], "n_a": 1}).status_code == 200
        assert service.process.wait(20) == 0


def test_past_the_drain_seconds_requests_are_answered_503(model_options: list[str], tmp_path: Path) -> None:
    options = ["--drain-seconds", "0.5", "--queue-seconds", "1000", "--batch-tokens", "64"]
    options += ["--max-request-tokens", "9999999"]
    with Service(*model_options, *options, log=tmp_path / "log.txt") as service:
        answers: list[httpx.Response] = []

        def ask(number: int) -> None:
            with service.client() as client:
                answers.append(client.post("/v1/augment", json=long_request(number)))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(1.0)
        service.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert service.process.wait(20) == 0
        assert len(answers) == 4
        for one in answers:
            assert one.status_code == 503
            assert one.headers["content-type"] == "application/problem+json"
            assert one.json()["code"] == "unavailable"
            assert "shutting down" in one.json()["detail"]
        assert "Traceback" not in service.log


def test_every_answer_has_a_request_id_and_the_access_log_shows_it(model_options: list[str], tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with Service(*model_options, "--access-log", log=log, tokens=TOKEN) as service, service.client(TOKEN) as client:
        body = {"texts": ["the secret cat"], "n_a": 1}
        given = client.post("/v1/augment", json=body, headers={"X-Request-Id": "from-a-proxy.7"})
        assert given.headers["x-request-id"] == "from-a-proxy.7"
        chosen = {client.get("/healthz").headers["x-request-id"] for _ in range(3)}
        assert len(chosen) == 3
        refused = client.post("/v1/augment?secret=1", json={}, headers={"X-Request-Id": "a b\tc" * 30})
        assert re.fullmatch("[0-9a-f]{16}", refused.headers["x-request-id"])
        client.get("/secret-path")
    line = r" request method=POST route=/v1/augment status=%d seconds=[0-9.e-]+ id=%s"
    assert re.search(line % (200, "from-a-proxy.7"), service.log)
    assert re.search(line % (422, refused.headers["x-request-id"]), service.log)
    assert "secret" not in service.log
    assert TOKEN not in service.log
