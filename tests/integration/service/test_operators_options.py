"""What an operator sets and sees: /info, metrics, the admin port, tokens, environment, proxies, compression, traces."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.command import run_command
from tests.support.service import TOKEN, Service

BODY = {"texts": ["the quick brown fox"], "n_a": 1}


def wait_for(service: Service, text: str) -> None:
    deadline = time.monotonic() + 20
    while text not in service.log and time.monotonic() < deadline:
        time.sleep(0.05)
    assert text in service.log


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


@pytest.fixture(scope="module")
def operated(model_options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with most of an operator's options, several of which come from the environment."""
    folder = tmp_path_factory.mktemp("operated")
    (folder / "tokens").write_text(f"team-a: {TOKEN} per-minute=100000\n", encoding="utf-8")
    options = ["--token-file", str(folder / "tokens"), "--admin-port", "0", "--access-log", "--slow-seconds", "0.0001"]
    options += ["--cors-origin", "https://app.example", "--root-path", "/augment"]
    variables = {
        "AUGMENT_SERVICE_MAX_N_A": "7",
        "AUGMENT_SERVICE_SLOW_SECONDS": "99",
        "AUGMENT_SERVICE_MAX_TEXT": "secret",
    }
    # As Kubernetes sets them for a Service called augment.
    variables |= {
        "AUGMENT_PORT": "tcp://10.0.0.1:8000",
        "AUGMENT_SERVICE_HOST": "10.0.0.1",
        "AUGMENT_SERVICE_PORT": "1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        service = Service(*model_options, *options, log=folder / "log.txt")
    with service:
        yield service


def test_options_come_from_flags_then_from_the_environment(operated: Service) -> None:
    with operated.client(TOKEN) as client:
        assert client.post("/v1/augment", json=BODY | {"n_a": 8}).json()["detail"] == "/n_a: 8 is more than 7"
    assert "slow_request" in operated.log
    assert "AUGMENT_SERVICE_MAX_TEXT" in operated.log
    assert "AUGMENT_SERVICE_PORT" not in operated.log
    assert "secret" not in operated.log


def test_slow_requests_are_counted_and_logged_with_the_name_of_their_token(operated: Service) -> None:
    with operated.client(TOKEN) as client:
        client.post("/v1/augment", json=BODY, headers={"X-Request-Id": "slow-one"})
        assert 'augment_service_slow_requests_total{route="/v1/augment"}' in client.get("/metrics").text
    wait_for(operated, "id=slow-one token=team-a")
    assert "slow_request method=POST route=/v1/augment status=200" in operated.log
    assert TOKEN not in operated.log


def test_the_admin_port_serves_metrics_without_a_token_and_no_texts(operated: Service) -> None:
    found = re.search(r"admin_listening url=(\S+)", operated.log)
    assert found
    with httpx.Client(base_url=found.group(1), timeout=20) as admin:
        assert "process_cpu_seconds_total" in admin.get("/metrics").text
        assert admin.get("/healthz").json()["status"] == "ok"
        assert admin.get("/readyz").json()["status"] == "ready"
        assert admin.get("/info").json()["limits"]["max_n_a"] == 7
        refused = admin.post("/v1/augment", json=BODY)
        assert refused.status_code == 404
        assert refused.headers["content-type"] == "application/problem+json"


def test_a_proxy_may_keep_or_remove_the_root_path(operated: Service) -> None:
    with operated.client(TOKEN) as client:
        for prefix in ("", "/augment"):
            assert client.post(f"{prefix}/v1/augment", json=BODY).status_code == 200
            assert client.get(f"{prefix}/docs").status_code == 200
            assert client.get(f"{prefix}/").status_code == 200
        assert client.get("/augment").status_code == 200
        assert client.get("/augmented/docs").status_code == 404
        assert client.get("/openapi.json").json()["servers"] == [{"url": "/augment"}]


def test_pages_of_listed_origins_may_call_the_service(operated: Service) -> None:
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    with operated.client() as client:
        allowed = client.options("/v1/augment", headers={"Origin": "https://app.example"} | ask)
        assert allowed.status_code == 204
        assert allowed.headers["access-control-allow-origin"] == "https://app.example"
        assert "authorization" in allowed.headers["access-control-allow-headers"]
        refused = client.post("/v1/augment", json=BODY, headers={"Origin": "https://app.example"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://app.example"
        other = client.options("/v1/augment", headers={"Origin": "https://evil.example"} | ask)
        assert other.status_code == 401
        assert "access-control-allow-origin" not in other.headers
        assert "origin" in other.headers["vary"]


def test_long_answers_are_compressed_for_clients_that_accept_it(service: Service) -> None:
    long = {"texts": ["the quick brown fox jumps over the lazy dog"] * 9, "n_a": 20}
    with service.client() as client:
        plain = client.post("/v1/augment", json=long, headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert int(plain.headers["content-length"]) == len(plain.content)
        with client.stream("POST", "/v1/augment", json=long, headers={"Accept-Encoding": "br, gzip;q=0.5"}) as answer:
            raw = b"".join(answer.iter_raw())
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["vary"] == "accept-encoding"
        assert gzip.decompress(raw) == plain.content
        assert len(raw) < len(plain.content) / 5
        refused = client.post("/v1/augment", json=long, headers={"Accept-Encoding": "gzip;q=0"})
        assert "content-encoding" not in refused.headers
        short = client.post("/v1/augment", json=BODY, headers={"Accept-Encoding": "gzip"})
        assert "content-encoding" not in short.headers
        with client.stream("POST", "/v1/augment/stream", json=long) as lines:
            assert "content-encoding" not in lines.headers
            assert len(list(lines.iter_lines())) == 9


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
        wait_for(service, "tokens_read tokens=2")
        assert [status("the-first-token-of-all") for _ in range(3)] == [200] * 3
        assert status("the-second-token-here") == 200
        file.write_text("second: short-secret\n", encoding="utf-8")
        service.process.send_signal(signal.SIGHUP)
        wait_for(service, "tokens_not_read")
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
