"""A run whose output is in an object store: it works in a local scratch folder and uploads what must last.

    URI/config.json                        created only if there is none: two runs cannot share a URI
    URI/run-state/commit-NNNNNNNN.json     names the files of one state with their sizes and hashes
    URI/run-state/NNNNNNNN-WRITER-NAME     their contents, never replaced
    URI/model/..., metrics.jsonl, ...      the outcome, uploaded at the end; URI/result.json comes last

The newest commit is the state of the run: its files were uploaded before it, so a partial upload is never taken for a
checkpoint. A commit is created only if its number is free. A process that starts creates the next one, so that an
earlier process that is still alive fails at its next checkpoint. The scratch folder may be lost at any time.

With several workers the command itself only checks the configuration and fetches the result. The first worker, which
may be on another machine, takes the run over in a scratch folder of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from pydantic import TypeAdapter, ValidationError

from shared.errors import InputError, ManifestError, StoreError, UsageError
from shared.model_folder import CONFIG
from shared.storage.input_files import open_binary, sha256_of
from shared.storage.objects import upload
from shared.storage.store import Store, open_store
from trainer.data.token_cache import cache_folder
from trainer.interruption import STOP
from trainer.run_folder import RESULT, open_run, write_atomically

logger = logging.getLogger(__name__)

STATE = "run-state"
VERSION = 1
_COMMIT = re.compile(r"commit-(\d{8})\.json")
_CONTENT = re.compile(r"(\d{8})-[0-9a-f]{12}-.+")
_PARTIAL = ".partial"
COPY_BYTES = 8 << 20
MAX_CLAIMS = 20
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """Location of the content of a file of the run. object: name under the URI; bytes: its size; sha256: hex digest."""

    object: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One state of a run. writer: the process that made it; files: path in the run's folder -> its content."""

    version: int
    writer: str
    files: Mapping[str, StoredFile]


class RemoteRun:
    """The scratch folder `path` of a run at `uri`, locked against other processes of this machine.

    part: which of the run's scratch folders on this machine, if not the command's own; lock_seconds: how long to wait
    for a process that uses it. Raises StoreError, UsageError if another process still uses it.
    """

    def __init__(self, uri: str, part: str = "", lock_seconds: float = 0.0) -> None:
        self.uri = uri.rstrip("/")
        self._store: Store = open_store(self.uri)
        self.path = scratch_folder(self.uri, part)
        self._writer = uuid.uuid4().hex[:12]
        self._number, self._files = 0, dict[str, StoredFile]()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = self.path.with_suffix(".lock").open("w")
            _lock(self._lock, lock_seconds)
        except BlockingIOError as error:
            self._lock.close()
            raise UsageError(
                f"--output {uri}: another process on this machine is using it; wait until it ends"
            ) from error
        except OSError as error:
            raise StoreError(f"{self.path}: {error.strerror or error}") from error

    def open(
        self, command: str, identity: Mapping[str, Any], runtime: Mapping[str, Any], growing: Sequence[str]
    ) -> None:
        """`check`, then `take_over` unless the run is finished. Raises StoreError, ManifestError."""
        self.check(command, identity, runtime, growing)
        if not (self.path / RESULT).exists():
            self.take_over()

    def check(
        self, command: str, identity: Mapping[str, Any], runtime: Mapping[str, Any], growing: Sequence[str]
    ) -> None:
        """Check or create the configuration, as `open_run` does, and fetch the result, if the run is finished.

        Raises StoreError, ManifestError.
        """
        # Checked before the configuration: a process that commits has already created one.
        has_state = _newest_number(self._store) > 0
        if not self._store.exists(CONFIG):
            if has_state:
                raise ManifestError(
                    f"{self.uri} holds the state of a run whose {CONFIG} is missing; use another --output, or delete "
                    "everything under this one"
                )
            self._keep_local(frozenset())
        agree_on_options(self._store, self.path, command, identity, runtime, growing)
        self.fetch_result()

    def fetch_result(self) -> None:
        """Bring the result into the scratch folder, if the run is finished. Raises StoreError."""
        _write(self.path / RESULT, self._store.read(RESULT) if self._store.exists(RESULT) else None)

    def take_over(self) -> None:
        """Make this the only process that publishes, and fetch the newest state into the scratch folder.

        Raises StoreError, ManifestError.
        """
        self._claim()
        self._fetch()

    def publish(self) -> None:
        """Make the scratch folder's checkpoints and metrics the state of the run. Raises StoreError, ManifestError.

        Fails when another process has taken the run over; nothing it has published is touched.
        """
        number, files = self._number + 1, dict[str, StoredFile]()
        for name, path in self._local_files():
            if name in (CONFIG, RESULT) or name.startswith("model/"):
                continue
            digest, known = sha256_of(path), self._files.get(name)
            if known is not None and known.sha256 == digest:
                files[name] = known
                continue
            target = f"{STATE}/{number:08d}-{self._writer}-{name.replace('/', '-')}"
            size = path.stat().st_size
            upload(path, f"{self.uri}/{target}")
            files[name] = StoredFile(object=target, bytes=size, sha256=digest)
        if not self._commit(number, files):
            raise StoreError(
                f"--output {self.uri}: another process has taken over this run, so this one stops. What it had "
                "published is kept"
            )
        logger.info("published", extra={"fields": {"commit": number, "files": len(files)}})

    def finish(self) -> None:
        """Upload the outcome, `result.json` last. Raises StoreError."""
        # Checkpoints are part of the state, from which a finished run can be extended.
        files = [
            (name, path)
            for name, path in self._local_files()
            if name not in (CONFIG, RESULT) and not ("/" not in name and name.endswith(".pt"))
        ]
        publish_files(self._store, files)
        self._store.put(RESULT, (self.path / RESULT).read_bytes())

    def close(self) -> None:
        """Unlock the scratch folder; remove it if the run is finished."""
        if (self.path / RESULT).exists():
            shutil.rmtree(self.path, ignore_errors=True)
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        self._lock.close()

    def _claim(self) -> None:
        """Create the next commit with the files of the newest one: from then on only this process publishes."""
        for _ in range(MAX_CLAIMS):
            number, files = newest_state(self._store, self.uri)
            if self._commit(number + 1, files):
                return
        raise StoreError(f"--output {self.uri}: other processes keep taking over this run; run one command at a time")

    def _commit(self, number: int, files: Mapping[str, StoredFile]) -> bool:
        """Create a commit; False when another process has done so. Then remove objects that are no longer needed."""
        commit = Commit(version=VERSION, writer=self._writer, files=files)
        name, content = f"{STATE}/commit-{number:08d}.json", json.dumps(asdict(commit), indent=1).encode()
        # If the response to a request was lost, the existing commit is our own.
        if not self._store.put_if_absent(name, content) and self._store.read(name) != content:
            return False
        objects = self._store.list(STATE)
        # A process that was suspended for long may create a number that others have used and removed.
        if any(_number(one, _COMMIT) > number for one in objects):
            return False
        self._number, self._files = number, dict(files)
        kept = {one.object for one in files.values()}
        for one in objects:
            # Later numbers belong to a process that is taking over at this moment.
            if 0 < _number(one, _COMMIT) < number or (0 < _number(one, _CONTENT) <= number and one not in kept):
                self._store.delete(one)
        return True

    def _fetch(self) -> None:
        """Make the scratch folder hold the files of the commit, and nothing else but the configuration."""
        self._keep_local(frozenset(self._files) | {CONFIG})
        for name, stored in self._files.items():
            path = self.path / name
            if path.is_file() and sha256_of(path) == stored.sha256:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            where = f"{self.uri}/{stored.object}"
            write_atomically(path, lambda file, where=where: _copy(where, file))  # type: ignore[misc]
            if sha256_of(path) != stored.sha256:
                path.unlink()
                raise StoreError(
                    f"{where} is damaged: its content differs from what was published; use another --output"
                )
        if self._files:
            logger.info("fetched", extra={"fields": {"commit": self._number, "files": len(self._files)}})

    def _keep_local(self, names: frozenset[str]) -> None:
        """Remove files of other names from the scratch folder."""
        for path in [one for one in self.path.rglob("*") if one.is_file()]:
            if path.relative_to(self.path).as_posix() not in names:
                path.unlink()

    def _local_files(self) -> Iterator[tuple[str, Path]]:
        """The scratch folder's complete files by path in the folder, sorted."""
        for path in sorted(self.path.rglob("*")):
            name = path.relative_to(self.path).as_posix()
            if path.is_file() and _PARTIAL not in name and name != STOP:
                yield name, path


def scratch_folder(uri: str, part: str = "") -> Path:
    """Where a command with this output works on this machine; nothing is created."""
    runs = cache_folder().with_name("tinybert-runs")
    return runs / f"{hashlib.sha256(uri.rstrip('/').encode()).hexdigest()[:24]}{part}"


def agree_on_options(
    store: Store,
    folder: Path,
    command: str,
    identity: Mapping[str, Any],
    runtime: Mapping[str, Any] | None = None,
    growing: Sequence[str] = (),
) -> None:
    """`open_run` for a run in a store: its configuration is created there, or checked against this run.

    folder: scratch folder of this machine, which gets a copy. Raises StoreError, ManifestError.
    """
    path = folder / CONFIG
    before = store.read(CONFIG) if store.exists(CONFIG) else None
    _write(path, before)
    open_run(str(folder), command, identity, runtime, growing, store.uri)
    after = path.read_bytes()
    if before is None and not store.put_if_absent(CONFIG, after):
        # Another process was faster, or the response to our own request was lost.
        _write(path, store.read(CONFIG))
        open_run(str(folder), command, identity, runtime, growing, store.uri)
    elif before is not None and before != after:
        # In this order: a result next to the new options would be taken for theirs.
        store.delete(RESULT)
        store.put(CONFIG, after)


def publish_files(store: Store, files: Sequence[tuple[str, Path]]) -> None:
    """Upload files by name under a store's URI, so that a model appears complete or not at all. Raises StoreError.

    A model folder is not loadable without its `config.json`: an older one is removed first, the new one comes last.
    """
    models = [name for name, _ in files if PurePosixPath(name).name == CONFIG]
    for name in models:
        store.delete(name)
    for name, path in sorted(files, key=lambda one: one[0] in models):
        upload(path, f"{store.uri}/{name}")


def newest_state(store: Store, uri: str) -> tuple[int, Mapping[str, StoredFile]]:
    """Number and files of a run's newest commit; 0 and empty before the first commit. Raises StoreError, ManifestError.

    uri: the store's, for messages.
    """
    number = _newest_number(store)
    if not number:
        return 0, {}
    name = f"{STATE}/commit-{number:08d}.json"
    try:
        commit = TypeAdapter(Commit).validate_json(store.read(name))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]["msg"]
        raise ManifestError(f"{uri}/{name} is damaged ({problem}); use another --output") from error
    if commit.version != VERSION or any(not _is_inside(one) for one in commit.files):
        raise ManifestError(f"{uri}/{name} was not written by this version; use another --output")
    return number, commit.files


def _newest_number(store: Store) -> int:
    return max((_number(one, _COMMIT) for one in store.list(STATE)), default=0)


def _copy(uri: str, file: Any) -> None:
    try:
        with open_binary(uri) as source:
            shutil.copyfileobj(source, file, COPY_BYTES)
    except InputError as error:
        raise StoreError(
            f"{uri} is missing or was replaced; if no other process is using this run, run the command again"
        ) from error


def _write(path: Path, content: bytes | None) -> None:
    """Write a small file of the scratch folder; None removes it."""
    if content is None:
        path.unlink(missing_ok=True)
    else:
        write_atomically(path, lambda file: file.write(content))


def _lock(file: IO[str], seconds: float) -> None:
    """Raises BlockingIOError when another process still holds the lock after this time."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_POLL_SECONDS)


def _number(name: str, pattern: re.Pattern[str]) -> int:
    """The number in an object's name; 0 for names of another kind."""
    found = pattern.fullmatch(name.removeprefix(f"{STATE}/"))
    return int(found[1]) if found else 0


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts
