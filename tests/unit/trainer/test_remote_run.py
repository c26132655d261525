"""A run in an object store survives a kill at any request, and two processes cannot spoil it for each other."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore

from shared.errors import ManifestError, StoreError, UsageError
from shared.storage import objects
from shared.storage.store import open_store
from trainer.interruption import STOP
from trainer.remote_run import STATE, RemoteRun, publish_files

URI = "s3://bucket/run"
REQUESTS = ("put", "get", "get_range", "head", "delete", "list_with_delimiter")
LAST_STEP = 3
MODEL = ("config.json", "model.safetensors", "tokenizer.json")


class Killed(BaseException):
    """Not an Exception, as SIGKILL is not."""


class Bucket:
    """A store in memory that ends the process at a chosen request, before or after it has had its effect."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.memory = MemoryStore()
        self.requests, self.kill_at, self.is_after = 0, -1, False
        patch.setattr(objects, "_client_of", lambda *_: self.memory)
        for name in REQUESTS:
            patch.setattr(obstore, name, self._wrapped(getattr(obstore, name)))

    def _wrapped(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def request(*arguments: Any, **options: Any) -> Any:
            self.requests += 1
            is_now = self.requests == self.kill_at
            if is_now and not self.is_after:
                raise Killed
            try:
                return real(*arguments, **options)
            finally:
                if is_now:
                    raise Killed

        return request

    def names(self) -> set[str]:
        return {one["path"].removeprefix("run/") for page in self.memory.list() for one in page}

    def content(self, name: str) -> bytes:
        return bytes(self.memory.get(f"run/{name}").bytes())

    def newest(self) -> dict[str, bytes]:
        """Files of the newest commit; fails when one is missing or is not what the commit says."""
        commits = sorted(one for one in self.names() if one.startswith(f"{STATE}/commit-"))
        files = json.loads(self.content(commits[-1]))["files"] if commits else {}
        found = {name: self.content(one["object"]) for name, one in files.items()}
        for name, content in found.items():
            assert hashlib.sha256(content).hexdigest() == files[name]["sha256"]
            assert len(content) == files[name]["bytes"]
        return found


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bucket:
    monkeypatch.setenv("TRAINER_CACHE", str(tmp_path / "cache"))
    return Bucket(monkeypatch)


def step_of(run: RemoteRun) -> int:
    """The step in the scratch folder's checkpoint; its metrics must belong to the same one."""
    path = run.path / "checkpoint.pt"
    if not path.exists():
        return 0
    step = int(path.read_text())
    assert (run.path / "metrics.jsonl").read_text() == "line\n" * step
    assert (run.path / "best.pt").read_text() == "best"
    return step


def write_step(run: RemoteRun, step: int) -> None:
    (run.path / "best.pt").write_text("best")
    (run.path / "metrics.jsonl").write_text("line\n" * step)
    (run.path / "checkpoint.pt").write_text(str(step))


def train(published: list[int]) -> None:
    """A run in small: a checkpoint per step, then the outcome."""
    run = RemoteRun(URI)
    try:
        run.open("teacher", {"lr": 0.1}, {}, ())
        if (run.path / "result.json").exists():
            return
        step = step_of(run)
        assert step >= max(published, default=0), "a published checkpoint was lost"
        while step < LAST_STEP:
            step += 1
            write_step(run, step)
            run.publish()
            published.append(step)
        (run.path / "model").mkdir(exist_ok=True)
        for name in MODEL:
            (run.path / "model" / name).write_text("weights")
        (run.path / "result.json").write_text("{}")
        run.finish()
    finally:
        run.close()


def open_and_close(options: dict[str, float]) -> None:
    with contextlib.closing(RemoteRun(URI)) as run:
        run.open("teacher", options, {}, ())


def outcome(bucket: Bucket) -> dict[str, bytes]:
    return {name: bucket.content(name) for name in bucket.names() if not name.startswith(f"{STATE}/")} | {
        f"state of {name}": content for name, content in bucket.newest().items()
    }


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("keeps_scratch", [False, True], ids=["another-machine", "same-machine"])
def test_a_kill_at_any_request_loses_no_published_checkpoint(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_after: bool, keeps_scratch: bool
) -> None:
    train([])
    num_requests = bucket.requests
    undisturbed, num_objects = outcome(bucket), len(bucket.names())
    assert undisturbed["model/model.safetensors"] == b"weights"
    for moment in range(1, num_requests + 1):
        bucket.memory = MemoryStore()
        bucket.memory.put("run/notes.txt", b"not ours")
        bucket.memory.put(f"run/{STATE}/notes.txt", b"not ours")
        bucket.requests, bucket.kill_at, bucket.is_after = 0, moment, is_after
        monkeypatch.setenv("TRAINER_CACHE", str(tmp_path / f"cache-{moment}"))
        published: list[int] = []
        with pytest.raises(Killed):
            train(published)
        assert "result.json" not in bucket.names() or "model/config.json" in bucket.names()
        assert "model/config.json" not in bucket.names() or {f"model/{one}" for one in MODEL} <= bucket.names()
        bucket.newest()
        if not keeps_scratch:
            monkeypatch.setenv("TRAINER_CACHE", str(tmp_path / f"other-{moment}"))
        train(published)
        found = outcome(bucket)
        assert found.pop("notes.txt") == b"not ours"
        assert found == undisturbed
        # Nothing of the killed process is left, and nothing of others was removed.
        assert f"{STATE}/notes.txt" in bucket.names()
        assert len(bucket.names()) == num_objects + 2


@settings(deadline=None, max_examples=60)
@given(
    actions=st.lists(
        st.tuples(st.sampled_from(["start", "publish"]), st.integers(0, 2), st.integers(0, 12), st.booleans()),
        max_size=14,
    )
)
def test_processes_that_take_a_run_over_from_each_other_leave_a_whole_state(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int, int, bool]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        bucket, folder = Bucket(patch), tmp_path_factory.mktemp("machines")
        alive: dict[int, RemoteRun] = {}
        owner, step = None, 0
        for kind, machine, kill_after, is_after in actions:
            bucket.requests, bucket.kill_at, bucket.is_after = 0, kill_after or -1, is_after
            try:
                if kind == "start":
                    if machine in alive:
                        alive.pop(machine).close()
                    patch.setenv("TRAINER_CACHE", str(folder / str(machine)))
                    run = RemoteRun(URI)
                    try:
                        run.open("teacher", {"lr": 0.1}, {}, ())
                    except Killed:
                        run.close()
                        owner = None
                        raise
                    assert step_of(run) >= 0
                    alive[machine], owner = run, machine
                elif machine in alive:
                    step += 1
                    write_step(alive[machine], step)
                    if owner not in (machine, None):
                        with pytest.raises(StoreError, match="another process has taken over this run"):
                            alive[machine].publish()
                        alive.pop(machine).close()
                    else:
                        alive[machine].publish()
                        assert bucket.newest()["checkpoint.pt"] == str(step).encode()
            except Killed:
                if machine in alive:
                    alive.pop(machine).close()
            except StoreError:
                # A process that was killed while it took the run over may have done so.
                assert owner is None
                alive.pop(machine).close()
            bucket.kill_at = -1
            bucket.newest()
        for run in alive.values():
            run.close()


def test_two_runs_cannot_share_a_uri(bucket: Bucket) -> None:
    train([])
    with pytest.raises(ManifestError, match=rf"{URI} holds a run with a different lr \(0.1, now 0.2\)"):
        open_and_close({"lr": 0.2})


def test_two_processes_of_a_machine_cannot_share_a_scratch_folder(bucket: Bucket) -> None:
    first = RemoteRun(URI)
    with pytest.raises(UsageError, match="another process on this machine"):
        RemoteRun(f"{URI}/")
    first.close()
    RemoteRun(URI).close()


def test_a_state_whose_configuration_is_missing_is_refused(bucket: Bucket) -> None:
    train([])
    bucket.memory.delete("run/config.json")
    with pytest.raises(ManifestError, match=r"whose config\.json is missing"):
        open_and_close({"lr": 0.1})


def test_a_damaged_checkpoint_is_named_instead_of_used(bucket: Bucket) -> None:
    run = RemoteRun(URI)
    run.open("teacher", {"lr": 0.1}, {}, ())
    write_step(run, 1)
    run.publish()
    (run.path / "checkpoint.pt").unlink()
    run.close()
    name = next(one for one in bucket.names() if one.endswith("checkpoint.pt"))
    bucket.memory.put(f"run/{name}", b"2")
    with pytest.raises(StoreError, match=rf"{name} is damaged"):
        open_and_close({"lr": 0.1})


def test_a_run_of_more_epochs_starts_from_the_finished_state(bucket: Bucket) -> None:
    def opened(epochs: int) -> RemoteRun:
        run = RemoteRun(URI)
        run.open("teacher", {"epochs": epochs}, {"keeps_stages": True}, ("epochs",))
        return run

    run = opened(1)
    write_step(run, 3)
    run.publish()
    (run.path / "result.json").write_text("{}")
    run.finish()
    run.close()
    assert not run.path.exists()
    run = opened(2)
    assert step_of(run) == 3
    assert not (run.path / "result.json").exists()
    assert "result.json" not in bucket.names()
    assert json.loads(bucket.content("config.json"))["epochs"] == 2
    run.close()


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
def test_a_reader_never_sees_half_a_model(bucket: Bucket, tmp_path: Path, is_after: bool) -> None:
    files = [(f"model/{name}", tmp_path / name) for name in MODEL]
    bucket.is_after, moment, is_killed = is_after, 0, True
    while is_killed:
        for name, path in files:
            bucket.memory.put(f"run/{name}", b"old")
            path.write_text("new")
        moment += 1
        bucket.requests, bucket.kill_at, is_killed = 0, moment, False
        try:
            publish_files(open_store(URI), files)
        except Killed:
            is_killed = True
        bucket.kill_at = -1
        if "model/config.json" in bucket.names():
            assert {bucket.content(name) for name, _ in files} in ({b"old"}, {b"new"})
    assert moment > len(files)
    assert bucket.content("model/config.json") == b"new"


def test_the_first_of_several_workers_continues_what_the_command_has_checked(bucket: Bucket) -> None:
    def opened() -> tuple[RemoteRun, RemoteRun]:
        command, first = RemoteRun(URI), RemoteRun(URI, "-first")
        command.check("teacher", {"lr": 0.1}, {}, ())
        return command, first

    command, first = opened()
    first.take_over()
    write_step(first, 2)
    (first.path / STOP).touch()
    first.publish()
    assert STOP not in bucket.newest()
    for one in (command, first):
        one.close()
    command, first = opened()
    with pytest.raises(UsageError, match="another process on this machine"):
        RemoteRun(URI, "-first", 0.2)
    first.take_over()
    assert step_of(first) == 2
    assert not (first.path / STOP).exists()
    (first.path / "result.json").write_text("{}")
    first.finish()
    command.fetch_result()
    for one in (command, first):
        one.close()
        assert not one.path.exists()
