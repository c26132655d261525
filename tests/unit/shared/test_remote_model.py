"""A model in an object store is copied once per version; one line says why anything else is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from shared.errors import ModelError
from shared.model_folder import model_folder
from shared.storage import objects
from shared.storage.remote_model import fetched_model

MODEL = {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"weights", "extra/part.txt": b"more"}
RUN = {"config.json": json.dumps({"command": "teacher"}).encode(), "run-state/commit-00000001.json": b"{}"}

Put = Callable[[dict[str, bytes]], None]


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Put:
    store = MemoryStore()
    monkeypatch.setattr(objects, "_client_of", lambda *_: store)
    monkeypatch.setenv("TRAINER_CACHE", str(tmp_path))

    def write(files: dict[str, bytes]) -> None:
        fetched_model.cache_clear()
        for name, content in files.items():
            store.put(f"prefix/{name}", content)

    write({})
    return write


def content_of(folder: str) -> dict[str, bytes]:
    return {one.relative_to(folder).as_posix(): one.read_bytes() for one in Path(folder).rglob("*") if one.is_file()}


def test_a_model_is_copied_once(put: Put) -> None:
    put(MODEL)
    folder = model_folder("s3://bucket/prefix/", "--teacher")
    assert content_of(folder) == MODEL
    (Path(folder) / "mark").touch()
    fetched_model.cache_clear()
    assert model_folder("s3://bucket/prefix", "--teacher") == folder
    assert (Path(folder) / "mark").exists()


def test_a_replaced_model_is_copied_again(put: Put) -> None:
    put(MODEL)
    before = model_folder("s3://bucket/prefix", "--teacher")
    put({"model.safetensors": b"other weights"})
    after = model_folder("s3://bucket/prefix", "--teacher")
    assert before != after
    assert content_of(after) == MODEL | {"model.safetensors": b"other weights"}


def test_of_a_run_its_model_is_copied(put: Put) -> None:
    put(RUN | {f"model/{name}": content for name, content in MODEL.items()} | {"result.json": b"{}"})
    assert content_of(model_folder("s3://bucket/prefix", "--teacher")) == MODEL
    assert content_of(model_folder("s3://bucket/prefix/model", "--teacher")) == MODEL


def test_a_run_that_has_not_finished_is_refused(put: Put) -> None:
    put(RUN | {f"model/{name}": content for name, content in MODEL.items()})
    with pytest.raises(ModelError, match="--teacher s3://bucket/prefix is the output of a run that has not finished"):
        model_folder("s3://bucket/prefix", "--teacher")


def test_a_prefix_without_a_model_is_named(put: Put) -> None:
    put({"notes.txt": b""})
    with pytest.raises(ModelError, match=r"--model s3://bucket/prefix: no model found \(config\.json is missing\)"):
        model_folder("s3://bucket/prefix", "--model")
