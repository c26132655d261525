"""What a client and an operator can rely on under either server: each test runs on uvicorn and on Ray Serve."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.serve_cluster import ServeCluster
from tests.support.service import TOKEN, Service, wait_for_log, wait_until

TOKENS = f"team-a: {TOKEN} per-minute=100000\n"
BODY = {"texts": ["the quick brown fox"], "n_a": 1}
SERVERS = ["uvicorn", pytest.param("ray", marks=pytest.mark.slow)]
OPTIONS: dict[str, Any] = {
    "access_log": True,
    "slow_seconds": 0.0001,
    "cors_origin": ["https://app.example"],
    "root_path": "/augment",
    "max_body_bytes": 100_000,
}
VARIABLES = {
    "AUGMENT_SERVICE_MAX_N_A": "20",
    "AUGMENT_SERVICE_SLOW_SECONDS": "99",
    "AUGMENT_SERVICE_MAX_TEXT": "secret",
    # As Kubernetes sets them for a Service called augment.
    "AUGMENT_PORT": "tcp://10.0.0.1:8000",
    "AUGMENT_SERVICE_HOST": "10.0.0.1",
    "AUGMENT_SERVICE_PORT": "1",
}

pytestmark = pytest.mark.timeout(400)


def start(server: str, model_options: list[str], folder: Path, options: dict[str, Any]) -> Service | ServeCluster:
    if server == "ray":
        return ServeCluster(folder, serve_args(model_options) | options)
    flags: list[str] = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        flags += [flag] if value is True else [flag, *(value if isinstance(value, list) else [str(value)])]
    return Service(*model_options, *flags, log=folder / "log.txt")


def serve_args(model_options: list[str]) -> dict[str, Any]:
    pairs = zip(model_options[::2], model_options[1::2], strict=True)
    return {name.removeprefix("--"): int(value) if value.isdigit() else value for name, value in pairs}


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text(TOKENS, encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=SERVERS)
def operated(
    request: pytest.FixtureRequest,
    model_options: list[str],
    token_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Service | ServeCluster]:
    """A service with most of an operator's options, several of which come from the environment."""
    folder = tmp_path_factory.mktemp("operated")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in VARIABLES.items():
            patch.setenv(name, value)
        started = start(request.param, model_options, folder, OPTIONS | {"token_file": str(token_file)})
    with started:
        yield started


def check_problem(response: httpx.Response, status: int, code: str) -> None:
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert len(response.headers.get_list("x-request-id")) == 1


def test_options_come_from_flags_then_from_the_environment(operated: Service | ServeCluster) -> None:
    with operated.client(TOKEN) as client:
        refused = client.post("/v1/augment", json=BODY | {"n_a": 21})
        assert refused.json()["detail"] == "/n_a: 21 is more than the limit of 20"
    assert "slow_request" in operated.log
    assert "AUGMENT_SERVICE_MAX_TEXT" in operated.log
    assert "AUGMENT_SERVICE_PORT" not in operated.log
    assert "secret" not in operated.log


def test_slow_requests_are_counted_and_logged_with_the_name_of_their_token(operated: Service | ServeCluster) -> None:
    with operated.client(TOKEN) as client:
        client.post("/v1/augment", json=BODY, headers={"X-Request-Id": "slow-one"})
        assert 'augment_service_slow_requests_total{route="/v1/augment"}' in client.get("/metrics").text
    wait_for_log(operated, "id=slow-one token=team-a")
    assert "slow_request method=POST route=/v1/augment status=200" in operated.log
    assert TOKEN not in operated.log


def test_a_proxy_may_keep_or_remove_the_root_path(operated: Service | ServeCluster) -> None:
    with operated.client(TOKEN) as client:
        for prefix in ("", "/augment"):
            assert client.post(f"{prefix}/v1/augment", json=BODY).status_code == 200
            assert client.get(f"{prefix}/docs").status_code == 200
            assert client.get(f"{prefix}/").status_code == 200
        assert client.get("/augment").status_code == 200
        assert client.get("/augmented/docs").status_code == 404
        assert client.get("/openapi.json").json()["servers"] == [{"url": "/augment"}]


def test_pages_of_listed_origins_may_call_the_service(operated: Service | ServeCluster) -> None:
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


def test_long_answers_are_compressed_for_clients_that_accept_it(operated: Service | ServeCluster) -> None:
    long = {"texts": ["the quick brown fox jumps over the lazy dog"] * 9, "n_a": 20}
    with operated.client(TOKEN) as client:
        plain = client.post("/v1/augment", json=long, headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert int(plain.headers["content-length"]) == len(plain.content)
        with client.stream("POST", "/v1/augment", json=long, headers={"Accept-Encoding": "br, gzip;q=0.5"}) as answer:
            raw = b"".join(answer.iter_raw())
        assert answer.headers["content-encoding"] == "gzip"
        assert "accept-encoding" in answer.headers["vary"]
        assert gzip.decompress(raw) == plain.content
        assert len(raw) < len(plain.content) / 5
        refused = client.post("/v1/augment", json=long, headers={"Accept-Encoding": "gzip;q=0"})
        assert "content-encoding" not in refused.headers
        short = client.post("/v1/augment", json=BODY, headers={"Accept-Encoding": "gzip"})
        assert "content-encoding" not in short.headers
        with client.stream("POST", "/v1/augment/stream", json=long) as lines:
            assert "content-encoding" not in lines.headers
            assert len(list(lines.iter_lines())) == 9


def test_health_checks_need_no_token_and_may_use_head(operated: Service | ServeCluster) -> None:
    with operated.client() as client:
        for path in ("/healthz", "/readyz", "/"):
            response = client.head(path)
            assert response.status_code == 200, path
            assert response.content == b""
            assert int(response.headers["content-length"]) == len(client.get(path).content)


def test_every_answer_has_one_request_id_and_the_access_log_shows_it(operated: Service | ServeCluster) -> None:
    with operated.client(TOKEN) as client:
        body = {"texts": ["the secret cat"], "n_a": 1}
        given = client.post("/v1/augment", json=body, headers={"X-Request-Id": "from-a-proxy.7"})
        assert given.headers.get_list("x-request-id") == ["from-a-proxy.7"]
        chosen = [client.get("/healthz").headers.get_list("x-request-id") for _ in range(3)]
        assert all(len(one) == 1 for one in chosen)
        assert len({one[0] for one in chosen}) == 3
        check_problem(client.post("/v1/augment?secret=1", json={}, headers={"X-Request-Id": "bad-7"}), 422, "invalid")
        client.get("/secret-path")
    wait_for_log(operated, "id=bad-7")
    line = r"request method=POST route=/v1/augment status=%d seconds=[0-9.e-]+ id=%s"
    assert re.search(line % (200, "from-a-proxy.7"), operated.log)
    assert re.search(line % (422, "bad-7"), operated.log)
    assert "secret" not in operated.log
    assert TOKEN not in operated.log


def test_refusals_are_problem_documents(operated: Service | ServeCluster) -> None:
    with operated.client() as client:
        refused = client.post("/v1/augment", json=BODY)
        check_problem(refused, 401, "unauthorized")
        assert refused.headers["www-authenticate"] == "Bearer"
        check_problem(client.get("/metrics"), 401, "unauthorized")
    with operated.client(TOKEN) as client:
        check_problem(
            client.post("/v1/augment", content=b"{", headers={"Content-Type": "application/json"}), 400, "not-json"
        )
        check_problem(
            client.post("/v1/augment", content=b"{}", headers={"Content-Type": "text/plain"}), 415, "not-json"
        )
        check_problem(client.post("/v1/augment", json={"texts": ["x" * 200_000]}), 413, "body-too-large")
        check_problem(client.post("/v1/candidates", json=BODY | {"k": 0}), 422, "invalid")
        missing = client.get("/nowhere")
        assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
        wrong = client.get("/v1/augment")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")


def test_a_changed_token_file_is_read_again(operated: Service | ServeCluster, token_file: Path) -> None:
    def is_accepted(token: str) -> bool:
        with operated.client(token) as client:
            return client.post("/v1/augment", json=BODY).status_code == 200

    assert not is_accepted("a-second-token-of-the-tests")
    token_file.write_text(f"{TOKENS}team-b: a-second-token-of-the-tests\n", encoding="utf-8")
    wait_until(lambda: is_accepted("a-second-token-of-the-tests"))
    token_file.write_text("team-b: short-secret\n", encoding="utf-8")
    wait_for_log(operated, "tokens_not_read: the old ones stay valid")
    assert is_accepted(TOKEN)
    assert "short-secret" not in operated.log
    token_file.write_text(TOKENS, encoding="utf-8")
    wait_until(lambda: not is_accepted("a-second-token-of-the-tests"))
    assert is_accepted(TOKEN)


def test_info_and_metrics_describe_the_service(operated: Service | ServeCluster) -> None:
    with operated.client(TOKEN) as client:
        client.post("/v1/augment", json=BODY)
        info, text = client.get("/info").json(), client.get("/metrics").text
    assert info["needs_token"] is True
    assert info["limits"]["max_n_a"] == 20
    for kind in ("mlm", "glove"):
        assert re.fullmatch("[0-9a-f]{64}", info["models"][kind]["fingerprint"])
        assert re.search(rf'^augment_service_model_info\{{.*model="{kind}".*\}} 1\.0', text, re.MULTILINE)
    for line in (
        r"process_resident_memory_bytes [0-9.e+]+",
        r'augment_service_build_info\{python="[^"]+",version="[^"]+"\} 1\.0',
        r'augment_service_token_requests_total\{token="team-a"\} [1-9]',
        r"augment_service_samples_total [1-9]",
    ):
        assert re.search(f"^{line}", text, re.MULTILINE), line


@pytest.mark.parametrize("server", SERVERS)
def test_without_tokens_only_loopback_host_names_are_accepted(
    server: str, model_options: list[str], tmp_path: Path
) -> None:
    """A page of another site, whose name was made to point to this machine, is refused."""
    with start(server, model_options, tmp_path, {}) as service, service.client() as client:
        check_problem(client.post("/v1/augment", json=BODY, headers={"Host": "evil.example"}), 421, "wrong-host")
        assert client.post("/v1/augment", json=BODY, headers={"Host": "localhost:8000"}).status_code == 200
