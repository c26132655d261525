"""Paths mean the same in every process; a node that cannot see them says so by name."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from augment_service.config import RunConfig
from augment_service.job.heartbeat import Heartbeat
from augment_service.job.node_view import check_model_seen, check_output_seen
from shared.errors import ModelError, OutputError
from shared.storage.local_paths import absolute, absolute_model
from shared.storage.store import open_store


def test_every_path_is_absolute_before_it_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "model").mkdir()
    given = {"input": ("a.tsv", "~/b/*.csv", "s3://bucket/c"), "output": "~/out", "mlm": "model", "glove": "embedded"}
    config = RunConfig.build(given | {"text_column": ("t",)}).with_absolute_paths()
    assert config.input == (str(tmp_path / "a.tsv"), "/home/me/b/*.csv", "s3://bucket/c")
    assert (config.output, config.mlm, config.glove) == ("/home/me/out", str(tmp_path / "model"), "embedded")


@pytest.mark.parametrize("path", ["-", "", "s3://bucket/x", "hf://a/b", "/a/b"])
def test_what_is_not_a_relative_path_stays(path: str) -> None:
    assert absolute(path) == path


def test_names_of_models_that_are_not_here_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "embedded").mkdir()
    for name in ("embedded", "google-bert/bert-base-uncased"):
        assert absolute_model(name) == name
    assert absolute("file:///a/../b") == "/b"
    assert absolute(".") == os.fspath(tmp_path)


def test_a_node_that_does_not_see_the_output_says_so(tmp_path: Path) -> None:
    seen, unseen = tmp_path / "seen", tmp_path / "unseen"
    Heartbeat("run").write(open_store(str(seen)))
    check_output_seen(str(seen), "run")
    check_output_seen("s3://bucket/out", "run")
    began = time.monotonic()
    with pytest.raises(OutputError, match=f"node {socket.gethostname()} does not see the driver's --output {unseen}"):
        check_output_seen(str(unseen), "run", patience_seconds=0.3)
    assert time.monotonic() - began >= 0.3
    assert not unseen.exists()


def test_a_node_without_the_model_says_so(tmp_path: Path) -> None:
    for name in ("embedded", "google-bert/bert-base-uncased", str(tmp_path)):
        check_model_seen("--mlm", name)
    with pytest.raises(ModelError, match=rf"node {socket.gethostname()} has no {tmp_path}/gone \(--glove\)"):
        check_model_seen("--glove", f"{tmp_path}/gone")
