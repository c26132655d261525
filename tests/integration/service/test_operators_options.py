"""What an operator sets and sees under uvicorn: /info, metrics, the admin port, tokens that are read again, traces.

What is the same on Ray Serve is in `test_both_servers.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.support.command import run_command
from tests.support.service import TOKEN, Service, wait_for_log

BODY = {"texts": ["the quick brown fox"], "n_a": 1}


def test_info_shows_version_models_and_limits(guarded_service: Service, model_options: list[str]) -> None:
    with guarded_service.client() as client:
        info = client.get("/info").json()
        schema = client.get("/openapi.json").json()["paths"]["/v1/augment"]["post"]["requestBody"]
    assert info["needs_token"] is True
    assert info["models"]["mlm"]["name"] == Path(model_options[1]).name
    assert info["models"]["mlm"]["dtype"] == "fp32"
    assert re.fullmatch("[0-9a-f]{64}", info["models"]["mlm"]["fingerprint"])
    assert info["models"]["glove"]["words"] > 0
    assert info["limits"]["max_n_a"] == 30
    properties = schema["content"]["application/json"]["schema"]["properties"]
    assert properties["texts"]["maxItems"] == info["limits"]["max_texts"]
    assert model_options[1] not in json.dumps(info)


def test_the_fingerprint_is_the_one_that_a_job_records(
    service: Service, model_options: list[str], tmp_path: Path
) -> None:
    rows = tmp_path / "rows.tsv"
    rows.write_text("text\nthe quick brown fox\n", encoding="utf-8")
    options = [*model_options[:4], "--mlm-threads", "1", "--mlm-actors", "1", "--dtype", "fp32"]
    job = ["run", "--input", str(rows), "--text-column", "text", "--output", str(tmp_path / "out"), "--n-a", "1"]
    finished = run_command(*job, *options)
    assert finished.returncode == 0, finished.stderr
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    with service.client() as client:
        shown = client.get("/info").json()["models"]
    for kind in ("mlm", "glove"):
        assert shown[kind]["fingerprint"] == manifest["models"][kind]["fingerprint"]


def test_metrics_show_process_build_models_and_refusals(guarded_service: Service) -> None:
    with guarded_service.client(TOKEN) as client:
        assert client.post("/v1/augment", json=BODY | {"k": 0}).status_code == 422
        assert client.get("/healthz", headers={"X": "y" * 150_000}).status_code == 431
        text = client.get("/metrics").text
    for line in (
        r"process_resident_memory_bytes [0-9.e+]+",
        r"process_open_fds [0-9.]+",
        r'augment_service_build_info\{python="[^"]+",version="[^"]+"\} 1\.0',
        r'augment_service_model_info\{.*model="mlm".*\} 1\.0',
        r'augment_service_rejected_total\{code="invalid"\} [1-9]',
        r'augment_service_rejected_total\{code="headers-too-large"\} [1-9]',
        r'augment_service_token_requests_total\{token="token-1"\} [1-9]',
    ):
        assert re.search(f"^{line}", text, re.MULTILINE), line


def test_the_admin_port_serves_metrics_without_a_token_and_no_texts(model_options: list[str], tmp_path: Path) -> None:
    options = [*model_options, "--admin-port", "0", "--max-n-a", "7"]
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(Service(*options, log=tmp_path / "log.txt", tokens=TOKEN))
        found = re.search(r"admin_listening url=(\S+)", service.log)
        assert found
        admin = stack.enter_context(httpx.Client(base_url=found.group(1), timeout=20))
        assert "process_cpu_seconds_total" in admin.get("/metrics").text
        assert admin.get("/healthz").json()["status"] == "ok"
        assert admin.get("/readyz").json()["status"] == "ready"
        assert admin.get("/info").json()["limits"]["max_n_a"] == 7
        refused = admin.post("/v1/augment", json=BODY)
        assert refused.status_code == 404
        assert refused.headers["content-type"] == "application/problem+json"


def test_tokens_are_read_again_on_sighup_and_limited_each(model_options: list[str], tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("first: the-first-token-of-all per-minute=2\n", encoding="utf-8")

    def status(token: str) -> int:
        return httpx.post(
            f"{service.url}/v1/augment", json=BODY, headers={"Authorization": f"Bearer {token}"}, timeout=30
        ).status_code

    with Service(*model_options, "--token-file", str(file), log=tmp_path / "log.txt") as service:
        assert [status("the-first-token-of-all") for _ in range(3)] == [200, 200, 429]
        assert status("the-second-token-here") == 401
        file.write_text("\ufefffirst: the-first-token-of-all\nsecond: the-second-token-here\n", encoding="utf-8")
        service.process.send_signal(signal.SIGHUP)
        wait_for_log(service, "tokens_read tokens=2")
        assert [status("the-first-token-of-all") for _ in range(3)] == [200] * 3
        assert status("the-second-token-here") == 200
        file.write_text("second: short-secret\n", encoding="utf-8")
        service.process.send_signal(signal.SIGHUP)
        wait_for_log(service, "tokens_not_read")
        assert "line 1: a token must be 16" in service.log
        assert "short-secret" not in service.log
        assert status("the-second-token-here") == 200
        assert service.stop() == 0


def test_a_wrong_variable_is_named_and_traces_need_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUGMENT_SERVICE_MAX_TEXTS", "many")
    finished = run_command("serve", "--port", "0")
    assert finished.returncode == 2
    assert "AUGMENT_SERVICE_MAX_TEXTS: got 'many'" in finished.stderr
    monkeypatch.setenv("AUGMENT_SERVICE_MAX_TEXTS", "5")
    monkeypatch.setenv("AUGMENT_SERVICE_TRACES", "true")
    pytest.importorskip("opentelemetry.sdk")
    if not _has_exporter():
        finished = run_command("serve", "--port", "0")
        assert finished.returncode == 2
        assert "--traces needs OpenTelemetry" in finished.stderr
        assert "Traceback" not in finished.stderr


def test_spans_reach_the_collector_and_hold_no_text(
    model_options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not _has_exporter():
        pytest.skip("the extra `traces` is not installed here")
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        monkeypatch.setenv("AUGMENT_SERVICE_TRACES", "true")
        with Service(*model_options, log=tmp_path / "log.txt") as service:
            with service.client() as client:
                assert client.post("/v1/augment", json={"texts": ["the secret cat"], "n_a": 1}).status_code == 200
            assert service.stop() == 0
        collector.shutdown()
    assert received, "no span was sent before the end of the process"
    assert {path for path, _ in received} == {"/v1/traces"}
    spans = b"".join(body for _, body in received)
    assert b"POST /v1/augment" in spans
    assert b"secret" not in spans


def _has_exporter() -> bool:
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter  # noqa: F401
    except ImportError:
        return False
    return True


def test_one_variable_per_option() -> None:
    from augment_service.config import ServeConfig
    from shared.cli.environment import from_environment, unknown_variables, variable_of

    values = {"AUGMENT_SERVICE_CORS_ORIGIN": "https://a.example, https://b.example", "AUGMENT_SERVICE_GZIP": "false"}
    values |= {"AUGMENT_SERVICE_PORT": "8080", "AUGMENT_SERVICE_LOG_FORMAT": "json", "AUGMENT_SERVICE_THREADS": ""}
    config = ServeConfig.build(from_environment(ServeConfig, values))
    assert config.cors_origin == ("https://a.example", "https://b.example")
    assert (config.gzip, config.port, config.log_format, config.threads) == (False, 8080, "json", None)
    for name in ServeConfig.model_fields:
        assert re.fullmatch("AUGMENT_SERVICE_[A-Z_]+", variable_of(ServeConfig, name))
    links = {"AUGMENT_SERVICE_PORT": "tcp://10.0.0.1:80", "AUGMENT_SERVICE_PORT_80_TCP_ADDR": "10.0.0.1"}
    links |= {"AUGMENT_SERVICE_SERVICE_HOST": "10.0.0.1", "AUGMENT_SERVICE_SERVICE_PORT_HTTP": "80"}
    assert from_environment(ServeConfig, links) == {}
    assert unknown_variables(ServeConfig, links, ()) == []
    assert unknown_variables(ServeConfig, {"AUGMENT_SERVICE_PROT": "1", "OTHER": "2"}, ()) == ["AUGMENT_SERVICE_PROT"]
    assert "AUGMENT_SERVICE_MLM" not in os.environ
