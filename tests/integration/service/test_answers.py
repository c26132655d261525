"""Samples and candidates equal those of the batch job, regardless of concurrent requests and of the route."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import datasets
import httpx
import pytest

from augment_service.service.client import AsyncClient, Client, ServiceError
from tests.support.command import run_command
from tests.support.hardware import CPU_DTYPES
from tests.support.service import Service

TEXTS = [
    "The quick brown fox jumps over the lazy dog number 7.",
    "A great movie with a good plot, bad acting and a terrible ending",
    "Honestly, people live there happily and the cat sat near a small river — ünïcode, 日本,\u2028 and 🦊 too",
    "the cat",
    "",
]
SETTINGS: dict[str, Any] = {"n_a": 6, "k": 8, "seed": 11}
SWITCHES: list[dict[str, Any]] = [
    {},
    {"context": "pair"},
    {"context": "unmasked", "words": "all-letters"},
    {"filter": "whole-words", "words": "all", "text": "reference"},
    {"conditioning": "sequential", "n_a": 3},
]


def job_samples(rows: list[tuple[str, str]], folder: Path, options: list[str], params: dict[str, Any]) -> list[Any]:
    """Samples that the batch job writes for pairs of texts, per source id."""
    table = folder / "in.jsonl"
    table.write_text("".join(json.dumps({"a": a, "b": b}) + "\n" for a, b in rows), encoding="utf-8")
    flags = [part for name, value in params.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    # Three rows per shard, so that the batches differ from those of the requests.
    run = ["run", "--input", str(table), "--text-column", "a", "b", "--output", str(folder / "out")]
    run += ["--shard-rows", "3"]
    keep = [one for one in options if one != "--threads"][:-1]
    finished = run_command(*run, *keep, "--mlm-actors", "1", *flags)
    assert finished.returncode == 0, finished.stderr
    shards = sorted(str(path) for path in (folder / "out" / "shards").glob("*.arrow"))
    found = datasets.load_dataset("arrow", data_files=shards, split="train", cache_dir=str(folder / "cache"))
    names = ("n", "text_a", "text_b", "replaced")
    return [
        {"id": source, "samples": [{name: row[name] for name in names} for row in rows if row["n"]]}
        for source, rows in itertools.groupby(found, key=lambda row: row["source_id"])
    ]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_samples_do_not_depend_on_concurrent_requests(service: Service, switches: dict[str, Any]) -> None:
    params = SETTINGS | switches

    async def ask() -> None:
        async with AsyncClient(service.url) as client:
            together = await client.augment(TEXTS, **params)
            texts = [text + " again" for text in TEXTS]
            crowd = [client.augment([text, text + " and more"], **(params | {"seed": 5})) for text in texts * 3]
            # The texts of `together` are cached; these are not, and reach the model together with the crowd's.
            fresh = await asyncio.gather(*(client.augment([text], first_id=9, **params) for text in texts), *crowd)
            alone = [await client.augment([text], first_id=9, **(params | {"k": 8})) for text in texts]
            assert fresh[: len(texts)] == alone
            assert [one.id for one in together] == [0, 1, 2, 3, 4]
            single = [(await client.augment([text], first_id=i, **params))[0] for i, text in enumerate(TEXTS)]
            assert single == together
            assert [one async for one in client.augment_stream(TEXTS, **params)] == together

    asyncio.run(ask())


def test_the_batch_job_gives_the_same_samples(service: Service, model_options: list[str], tmp_path: Path) -> None:
    rows = [(text, other) for text, other in zip(TEXTS[:4], reversed(TEXTS[:4]), strict=True)]
    rows += [(f"{a} {number}", f"{number} {b}") for number, (a, b) in enumerate(rows)]
    expected = job_samples(rows, tmp_path, model_options, SETTINGS)
    with Client(service.url) as client:
        answers = client.augment(rows, **SETTINGS)
    assert [one.model_dump() for one in answers] == expected
    assert sum(len(one.samples) for one in answers) >= 40


@pytest.mark.slow
@pytest.mark.golden
@pytest.mark.parametrize("dtype", CPU_DTYPES)
def test_two_threads_give_the_samples_of_a_job_on_one_thread(golden_dir: Path, dtype: str, tmp_path: Path) -> None:
    options = ["--mlm", str(golden_dir / "model"), "--glove", str(golden_dir / "glove.txt.gz"), "--dtype", dtype]
    lines = (golden_dir / "sentences.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line).get("text") or json.loads(line)["text_a"] for line in lines][:40]
    rows = list(zip(texts, reversed(texts), strict=True))
    expected = job_samples(rows, tmp_path, [*options, "--threads", "1"], SETTINGS)
    with Service(*options, "--threads", "2", log=tmp_path / "log.txt") as service, Client(service.url) as client:
        answers = client.augment(rows, **SETTINGS)
    assert [one.model_dump() for one in answers] == expected
    assert sum(len(one.samples) for one in answers) > 200


def test_candidates_have_spans_origins_and_scores(client: httpx.Client) -> None:
    body = {"texts": ["the quick cinematography", ["a cat", "honestly bad"]], "k": 5}
    answer = client.post("/v1/candidates", json=body).json()["results"]
    words = answer[0]["text_a"]["words"]
    expected = [("the", None), ("quick", "mlm"), ("cinematography", "glove")]
    assert [(one["word"], one["origin"]) for one in words] == expected
    assert words[1]["start"] == 4
    assert words[1]["end"] == 9
    assert len(words[2]["candidates"]) == 5
    assert words[2]["scores"] == sorted(words[2]["scores"], reverse=True)
    assert answer[0]["text_b"] is None
    assert answer[1]["text_b"]["text"] == "honestly bad"


def test_replaced_spans_locate_the_new_words(client: httpx.Client) -> None:
    answer = client.post("/v1/augment", json={"texts": [*TEXTS, TEXTS[:2]], "n_a": 9, "words": "all-letters"}).json()
    spans = 0
    for result in answer["results"]:
        for sample in result["samples"]:
            for one in sample["replaced"]:
                assert sample[one["column"]][one["start"] : one["end"]] == one["candidate"]
                spans += 1
    assert spans > 50


def test_the_cache_answers_the_second_time(client: httpx.Client) -> None:
    def hits() -> float:
        lines = client.get("/metrics").text.splitlines()
        return next(
            float(line.split()[1])
            for line in lines
            if line.startswith('augment_service_cache_lookups_total{outcome="hit"}')
        )

    before = hits()
    first = client.post("/v1/augment", json={"texts": ["the cat sat near the dog"], "seed": 1}).json()
    second = client.post("/v1/augment", json={"texts": ["the cat sat near the dog"], "seed": 1}).json()
    other = client.post("/v1/augment", json={"texts": ["the cat sat near the dog"], "seed": 2}).json()
    assert first == second != other
    assert hits() == before + 2


def test_the_client_raises_the_services_problem(service: Service) -> None:
    with Client(service.url) as client, pytest.raises(ServiceError, match="422 limit: /n_a") as caught:
        client.augment(["the cat"], n_a=10**9)
    assert caught.value.problem is not None
    assert caught.value.problem.errors[0].pointer == "/n_a"
    with Client("http://127.0.0.1:9", max_tries=2) as client, pytest.raises(ServiceError, match="after 2 attempts"):
        client.augment(["the cat"])
