"""Invalid input and abuse: always a clear problem document, never a 500, and the service keeps running."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.service import TOKEN, Service

ROUTES = ("/v1/augment", "/v1/candidates", "/v1/augment/stream")
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def guarded(guarded_service: Service) -> Iterator[httpx.Client]:
    with guarded_service.client(TOKEN) as one:
        yield one


def check_problem(response: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    assert response.status_code == status, response.text[:500]
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    assert len(response.content) < 4000
    if code:
        assert document["code"] == code
    return document


BAD_BODIES: list[tuple[str, int, str]] = [
    ("", 400, ""),
    ("{", 400, ""),
    ("\x00", 400, ""),
    ("null", 422, ""),
    ("[]", 422, ""),
    ("{}", 422, "/texts"),
    ('{"texts": []}', 422, "/texts"),
    ('{"texts": "the cat"}', 422, "/texts"),
    ('{"texts": [1]}', 422, "/texts/0"),
    ('{"texts": [null]}', 422, "/texts/0"),
    ('{"texts": [["one"]]}', 422, "/texts/0"),
    ('{"texts": [["one", "two", "three"]]}', 422, "/texts/0"),
    ('{"texts": ["a"], "k": 0}', 422, "/k"),
    ('{"texts": ["a"], "k": "5"}', 422, "/k"),
    ('{"texts": ["a"], "k": 5.5}', 422, "/k"),
    ('{"texts": ["a"], "k": true}', 422, "/k"),
    ('{"texts": ["a"], "k": 21}', 422, "/k"),
    ('{"texts": ["a"], "context": "triple"}', 422, "/context"),
    ('{"texts": ["a"], "wings": 2}', 422, "/wings"),
    ('{"texts": ["a", "b", "c", "d", "e"]}', 422, "/texts"),
    (json.dumps({"texts": ["x" * 601]}), 422, "/texts/0"),
    ('{"texts": ["\\ud800"]}', 400, ""),
    ("[" * 90_000, 400, ""),
    ('{"texts": ' + "[" * 4000 + "]" * 4000 + "}", 400, ""),
]
AUGMENT_ONLY = [
    ('{"texts": ["a"], "n_a": 1000000000}', "/n_a"),
    ('{"texts": ["a"], "n_a": -1}', "/n_a"),
    ('{"texts": ["a"], "n_a": 1e400}', None),
    ('{"texts": ["a"], "p_t": 1.5}', "/p_t"),
    ('{"texts": ["a"], "p_t": NaN}', None),
    ('{"texts": ["a"], "seed": -1}', "/seed"),
    ('{"texts": ["a"], "seed": 9223372036854775808}', "/seed"),
    ('{"texts": ["a"], "first_id": -1}', "/first_id"),
    ('{"texts": ["a"], "first_id": 1.5}', "/first_id"),
    ('{"texts": ["a"], "ids": [1]}', "/ids"),
]


@pytest.mark.parametrize("route", ROUTES[:2])
def test_a_problem_points_at_the_invalid_part_of_a_body(guarded: httpx.Client, route: str) -> None:
    for body, status, pointer in BAD_BODIES:
        document = check_problem(guarded.post(route, content=body.encode(), headers=JSON), status)
        if pointer:
            assert document["errors"][0]["pointer"].startswith(pointer), (body[:80], document)


def test_a_problem_points_at_the_invalid_number(guarded: httpx.Client) -> None:
    for body, pointer in AUGMENT_ONLY:
        response = guarded.post("/v1/augment", content=body, headers=JSON)
        document = check_problem(response, response.status_code)
        assert response.status_code in (400, 422)
        if pointer:
            assert document["errors"][0]["pointer"].startswith(pointer), (body, document)


@pytest.mark.parametrize("route", ROUTES)
def test_bodies_that_are_too_long_or_not_json_are_refused(guarded: httpx.Client, route: str) -> None:
    check_problem(guarded.post(route, content=b'{"texts": ["' + b"x" * 1_000_000 + b'"]}', headers=JSON), 413)
    chunks = (b"x" * 1000 for _ in range(200))
    check_problem(guarded.post(route, content=chunks, headers=JSON), 413)
    check_problem(guarded.post(route, content=b'{"texts": ["\xff\xfe"]}', headers=JSON), 400)
    check_problem(guarded.post(route, data={"texts": "a"}), 415)
    check_problem(guarded.post(route, content=b'{"texts": ["a"]}', headers={"Content-Type": "text/plain"}), 415)


def test_random_bodies_never_cause_a_server_error(guarded: httpx.Client) -> None:
    rng = random.Random(3)
    good = json.dumps({"texts": ["the cat", ["a dog", "ünï 🦊"]], "n_a": 2, "k": 3, "seed": 1, "first_id": 2}).encode()
    for _ in range(300):
        body = bytearray(good)
        for _ in range(rng.randrange(1, 6)):
            place = rng.randrange(len(body))
            change = rng.choice(["set", "cut", "double"])
            if change == "set":
                body[place] = rng.randrange(256)
            elif change == "cut":
                del body[place : place + rng.randrange(1, 8)]
            else:
                body[place:place] = body[place : place + rng.randrange(1, 20)]
        response = guarded.post(rng.choice(ROUTES), content=bytes(body), headers=JSON)
        assert response.status_code in (200, 400, 422), (bytes(body), response.text)


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong-token-wrong-token",
        f"Basic {TOKEN}",
        f"bearer{TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer " + "x" * 5000,
    ],
)
def test_wrong_tokens_are_refused(guarded_service: Service, authorization: str | None) -> None:
    headers = {"Authorization": authorization} if authorization is not None else {}
    with guarded_service.client() as client:
        for route in ROUTES:
            response = client.post(route, json={"texts": ["the cat"]}, headers=headers)
            check_problem(response, 401)
            assert response.headers["www-authenticate"] == "Bearer"
        check_problem(client.get("/metrics", headers=headers), 401)
        for path in ("/", "/healthz", "/readyz", "/openapi.json", "/docs", "/page.css", "/page.js"):
            assert client.get(path, headers=headers).status_code == 200, path


def test_every_token_is_accepted_and_none_is_logged(guarded_service: Service) -> None:
    other = "another-token-of-the-tests-42"
    for token in (TOKEN, other):
        with guarded_service.client(token) as client:
            assert client.post("/v1/augment", json={"texts": ["the secret cat"]}).status_code == 200
            assert client.get("/metrics").status_code == 200
    assert TOKEN not in guarded_service.log
    assert other not in guarded_service.log
    assert "secret cat" not in guarded_service.log


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/page.css/../app.py",
        "//etc/passwd",
        "/v1/augment/",
        "/static/x",
        "/%00",
        "/page.py",
        "/__init__.py",
        "/" + "x" * 3000,
    ],
)
def test_path_traversal_finds_nothing(guarded_service: Service, path: str) -> None:
    host, port = guarded_service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 404"), answer[:200]
    assert b"root:" not in answer


def test_unsupported_methods_are_refused(guarded: httpx.Client) -> None:
    response = guarded.get("/v1/augment")
    check_problem(response, 405)
    assert response.headers["allow"] == "POST"
    check_problem(guarded.request("TRACE", "/readyz"), 405)


def test_without_tokens_only_loopback_host_names_are_accepted(service: Service) -> None:
    with service.client() as client:
        check_problem(client.get("/readyz", headers={"Host": "evil.example"}), 421)
        assert client.get("/readyz", headers={"Host": "localhost:8000"}).status_code == 200
        assert client.get("/readyz", headers={"Host": "[::1]:8000"}).status_code == 200


def test_a_text_that_needs_too_many_tokens_is_refused(service: Service) -> None:
    long = "the quick brown fox jumps over a lazy dog " * 230
    with service.client() as client:
        began = time.monotonic()
        document = check_problem(
            client.post("/v1/augment", json={"texts": [long], "words": "all", "n_a": 99, "conditioning": "sequential"}),
            422,
            "limit",
        )
        assert "model tokens" in document["detail"]
        assert time.monotonic() - began < 30
        check_problem(client.post("/v1/candidates", json={"texts": ["x" * 1_000_000]}), 413)
        check_problem(client.post("/v1/candidates", json={"texts": ["x" * 100_000]}), 422, "limit")


def test_a_failed_stream_ends_with_a_problem_document(service: Service) -> None:
    long = "the quick brown fox jumps over a lazy dog " * 230
    body = {"texts": ["the cat", long], "words": "all", "n_a": 100, "conditioning": "sequential"}
    with service.client() as client, client.stream("POST", "/v1/augment/stream", json=body) as response:
        assert response.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in response.read().split(b"\n")[:-1]]
    assert lines[0]["id"] == 0
    assert lines[-1]["code"] == "limit"
    assert len(lines) == 2


def test_the_service_responds_despite_many_connections_and_slow_clients(service: Service) -> None:
    host, port = service.url.removeprefix("http://").split(":")

    async def crowd() -> None:
        writers = []
        for number in range(700):
            _, writer = await asyncio.open_connection(host, int(port))
            if number % 3 == 0:
                writer.write(b"POST /v1/augment HTTP/1.1\r\nHost: localhost\r\nContent-Le")
            elif number % 3 == 1:
                writer.write(
                    b"POST /v1/augment HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                    b"Content-Length: 900\r\n\r\n{"
                )
            writers.append(writer)
        async with httpx.AsyncClient(base_url=service.url, timeout=20) as client:
            assert (await client.get("/readyz")).status_code == 200
            response = await client.post("/v1/augment", json={"texts": ["the cat"], "n_a": 1})
            assert response.status_code == 200
        for writer in writers:
            writer.close()
        await asyncio.sleep(0.3)

    asyncio.run(crowd())
    with service.client() as client:
        assert client.post("/v1/augment", json={"texts": ["the cat"], "n_a": 1}).status_code == 200
        assert "augment_service_requests_in_flight 1.0" in client.get("/metrics").text


@pytest.mark.golden
def test_awkward_inputs_on_every_route(service: Service, data_dir: Path) -> None:
    files = sorted((data_dir / "awkward").iterdir())
    assert len(files) > 10
    with service.client() as client:
        for path in files:
            raw = path.read_bytes()
            for route in ROUTES:
                response = client.post(route, content=raw, headers=JSON)
                assert response.status_code in (400, 413, 422), (path.name, response.text[:300])
            lines = [line[:2_000] for line in raw.decode("utf-8", errors="replace").split("\n")]
            for start in range(0, len(lines), 60):
                texts = lines[start : start + 60]
                body = {"texts": texts, "context": "unmasked", "words": "all", "k": 5}
                found = client.post("/v1/candidates", json=body)
                assert found.status_code == 200, (path.name, found.text[:300])
                for text, one in zip(texts, found.json()["results"], strict=True):
                    for word in one["text_a"]["words"]:
                        assert 0 <= word["start"] < word["end"] <= len(text)
                augmented = client.post("/v1/augment", json=body | {"n_a": 2})
                assert augmented.status_code == 200, (path.name, augmented.text[:300])
                with client.stream("POST", "/v1/augment/stream", json=body | {"n_a": 2}) as stream:
                    lines_out = [json.loads(line) for line in stream.read().split(b"\n")[:-1]]
                assert lines_out == augmented.json()["results"]
