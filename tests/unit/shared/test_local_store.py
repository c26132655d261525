"""The local store on file systems without hard links, such as exFAT and gcsfuse."""

from __future__ import annotations

import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.output_names import writer_of_partial
from shared.shards import list_commits
from shared.storage import store as store_module
from shared.storage.store import LocalStore, open_store
from tests.support.shards import filled


@pytest.fixture(params=[errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def no_links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("no_links")
def test_a_job_is_written_without_hard_links(tmp_path: Path) -> None:
    store = filled(tmp_path, 4)
    assert [one.shard for one in list_commits(store)] == [0, 1, 2, 3]
    assert [path.name for path in (tmp_path / "commits").iterdir() if path.suffix != ".json"] == []


@pytest.mark.usefixtures("no_links")
def test_exactly_one_of_many_writers_creates_a_file(tmp_path: Path) -> None:
    for attempt in range(10):
        barrier, name = threading.Barrier(8), f"commits/{attempt:05d}.json"

        def create(number: int, barrier: threading.Barrier = barrier, name: str = name) -> bool:
            store = open_store(str(tmp_path))
            barrier.wait()
            return store.put_if_absent(name, str(number).encode())

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(create, range(8)))
        assert (sum(won), (tmp_path / name).read_bytes()) == (1, str(won.index(True)).encode())


@pytest.mark.usefixtures("no_links")
def test_a_writer_that_died_keeps_others_waiting_only_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "STALE_CLAIM_SECONDS", 0.5)
    store = LocalStore(str(tmp_path))
    replace = Path.replace

    class Killed(BaseException):
        pass

    def die(*_: object) -> Path:
        raise Killed

    monkeypatch.setattr(Path, "replace", die)
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    with pytest.raises(Killed):
        store.put_if_absent("commits/00001.json", b"first")
    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(Path, "unlink", unlink)
    left = [path.relative_to(tmp_path).as_posix() for path in (tmp_path / "commits").iterdir()]
    assert len(left) == 2
    assert {writer_of_partial(name) for name in left} == {"none"}
    began = time.monotonic()
    assert store.put_if_absent("commits/00001.json", b"second")
    assert 0.1 < time.monotonic() - began < 10
    assert store.read("commits/00001.json") == b"second"
    assert store.remove_partials(frozenset(), -1.0) == 1
