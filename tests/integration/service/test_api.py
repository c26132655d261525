"""The service conforms to its OpenAPI document, as tested by schemathesis, and the README's curl commands work."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import httpx
import jsonschema
import pytest

from tests.support.command import ROOT
from tests.support.service import TOKEN, Service


def curl_lines() -> list[str]:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^curl .*$", readme, flags=re.M)


def test_the_readme_has_curl_lines() -> None:
    assert len(curl_lines()) >= 4


@pytest.mark.parametrize("line", curl_lines())
def test_curl_lines_of_the_readme_work(service: Service, line: str) -> None:
    words = shlex.split(line.replace("http://127.0.0.1:8000", service.url))
    finished = subprocess.run([*words, "--silent", "--show-error"], capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stderr
    for answer in finished.stdout.strip().split("\n"):
        loaded = json.loads(answer)
        assert loaded.get("results") or loaded.get("samples") or loaded.get("status") == "ready"


def test_examples_and_responses_match_the_document(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    for path in ("/v1/augment", "/v1/candidates", "/v1/augment/stream"):
        route = document["paths"][path]["post"]
        assert {"200", "400", "401", "413", "415", "421", "422", "503"} <= set(route["responses"])
        schema = route["requestBody"]["content"]["application/json"]["schema"]
        for example in schema["examples"]:
            jsonschema.validate(example, schema)
            assert client.post(path, json=example).status_code == 200
        for content in route["responses"]["200"]["content"].values():
            root = {"$ref": content["schema"]["$ref"], "components": document["components"]}
            jsonschema.validate(content["example"], root)
    assert "securitySchemes" not in document["components"]


def test_the_document_requires_a_token_where_the_service_does(guarded_service: Service) -> None:
    with guarded_service.client() as client:
        document = client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert document["paths"]["/v1/augment"]["post"]["security"] == [{"token": []}]
    schema = document["paths"]["/v1/augment"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema["properties"]["n_a"]["maximum"] == 30


@pytest.mark.slow
def test_schemathesis_finds_no_failure(guarded_service: Service, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{guarded_service.url}/openapi.json"]
    command += ["--header", f"Authorization: Bearer {TOKEN}", "--checks", "all", "--max-examples", "60"]
    command += ["--generation-database", "none", "--seed", "1", "--phases", "examples,coverage,fuzzing"]
    command += ["--request-timeout", "30"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=tmp_path)
    assert finished.returncode == 0, finished.stdout[-6000:] + finished.stderr[-2000:]
    assert re.search(r"(\d{3,}) generated, \1 passed", finished.stdout), finished.stdout[-2000:]
