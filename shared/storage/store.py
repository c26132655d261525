"""Files of an output folder behind one small interface: a local disk or NFS here, an object store in `object_store`.

There are two ways to write: `put` replaces a file atomically, `put_if_absent` creates it only if the name is free. Both
leave either the whole file or nothing. Renaming and appending are missing because object stores have neither.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import hashlib
import os
import time
import uuid
from pathlib import Path
from typing import Protocol

from shared.errors import StoreError, UsageError
from shared.output_names import PARTIAL, partial_name, writer_of_partial
from shared.storage.objects import EXAMPLES, SCHEMES, is_remote

STALE_CLAIM_SECONDS = 30.0
"""A claim older than this is stale: its writer died between two system calls."""
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_TRANSIENT = {errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT, errno.ESTALE, errno.EBUSY}


class Store(Protocol):
    """An output folder. Every method raises StoreError; its `is_transient` says whether a retry may help."""

    @property
    def uri(self) -> str:
        """Its location, as the user wrote it."""
        ...

    def exists(self, name: str) -> bool:
        """Whether a file of that name exists."""
        ...

    def read(self, name: str) -> bytes:
        """Content of a file."""
        ...

    def sizes(self, prefix: str) -> dict[str, int]:
        """Names and sizes in bytes of the whole files directly in a folder, sorted by name; {} without the folder."""
        ...

    def list(self, prefix: str) -> list[str]:
        """The names from `sizes`."""
        ...

    def put(self, name: str, content: bytes) -> None:
        """Write or replace a file as a whole."""
        ...

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """Create a file; returns False and changes nothing if one of that name exists."""
        ...

    def delete(self, name: str) -> None:
        """Remove a file, if it exists."""
        ...

    def entries(self) -> builtins.list[str]:
        """Names directly in the output, sorted; those of folders end in "/"."""
        ...

    def remove_partials(self, live_writers: frozenset[str], older_than_seconds: float) -> int:
        """Remove our own half-written files of dead writers, and old ones of unknown writers; returns how many."""
        ...


class LocalStore:
    """A folder on a disk with atomic rename. `writer`: part of the names of half-written files."""

    def __init__(self, root: str, writer: str = "none") -> None:
        self.root = Path(root)
        self.uri = str(self.root)
        self._writer = writer

    def exists(self, name: str) -> bool:
        """Whether a file of that name exists."""
        return (self.root / name).exists()

    def read(self, name: str) -> bytes:
        """Content of a file. Raises StoreError."""
        try:
            return (self.root / name).read_bytes()
        except OSError as error:
            raise self._error(name, error) from error

    def sizes(self, prefix: str) -> dict[str, int]:
        """Names and sizes in bytes of the whole files directly in a folder, sorted by name; {} without the folder."""
        found: dict[str, int] = {}
        try:
            with os.scandir(self.root / prefix) as entries:
                for entry in entries:
                    if PARTIAL not in entry.name and entry.is_file():
                        with contextlib.suppress(FileNotFoundError):
                            found[f"{prefix}/{entry.name}"] = entry.stat().st_size
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._error(prefix, error) from error
        return dict(sorted(found.items()))

    def list(self, prefix: str) -> list[str]:
        """Names of the whole files directly in a folder, sorted."""
        return list(self.sizes(prefix))

    def put(self, name: str, content: bytes) -> None:
        """Write or replace a file as a whole. Raises StoreError."""
        temporary = self._write_partial(name, content)
        try:
            temporary.replace(self.root / name)
        except OSError as error:
            raise self._error(name, error) from error

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """Create a file; returns False and changes nothing if one of that name exists."""
        temporary = self._write_partial(name, content)
        try:
            os.link(temporary, self.root / name)
        except FileExistsError:
            # If NFS loses its first response, it may report that the link exists although this call created it.
            return temporary.stat().st_nlink == 2
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise self._error(name, error) from error
            return self._rename_if_absent(name, temporary)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        return True

    def _rename_if_absent(self, name: str, temporary: Path) -> bool:
        """`put_if_absent` without hard links (exFAT, gcsfuse): creating a claim file gives the right to rename."""
        path = self.root / name
        claim = path.with_name(partial_name(path.name, "none", hashlib.md5(name.encode()).hexdigest()))
        try:
            while True:
                try:
                    os.close(os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                    break
                except FileExistsError:
                    with contextlib.suppress(FileNotFoundError):
                        if time.time() - claim.stat().st_mtime > STALE_CLAIM_SECONDS:
                            claim.unlink()
                    time.sleep(0.02)
            try:
                if path.exists():
                    return False
                temporary.replace(path)
                return True
            finally:
                claim.unlink(missing_ok=True)
        except OSError as error:
            raise self._error(name, error) from error

    def delete(self, name: str) -> None:
        """Remove a file, if it exists."""
        try:
            (self.root / name).unlink(missing_ok=True)
        except OSError as error:
            raise self._error(name, error) from error

    def entries(self) -> builtins.list[str]:
        """Names directly in the output, sorted; those of folders end in "/". Raises StoreError."""
        try:
            with os.scandir(self.root) as entries:
                return sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._error("", error) from error

    def remove_partials(self, live_writers: frozenset[str], older_than_seconds: float) -> int:
        """Remove our own half-written files of dead writers, and old ones of unknown writers; returns how many."""
        count = 0
        for one in [*self.root.glob(f"*{PARTIAL}*"), *self.root.glob(f"*/*{PARTIAL}*")]:
            writer = writer_of_partial(one.relative_to(self.root).as_posix())
            if writer is None or writer in live_writers:
                continue
            with contextlib.suppress(OSError):
                if writer != "none" or time.time() - one.stat().st_mtime > older_than_seconds:
                    one.unlink()
                    count += 1
        return count

    def _write_partial(self, name: str, content: bytes) -> Path:
        path = self.root / name
        temporary = path.with_name(partial_name(path.name, self._writer, uuid.uuid4().hex))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise self._error(name, error) from error
        return temporary

    def _error(self, name: str, error: OSError) -> StoreError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            text = f"no space left for {self.root / name}; free some space, and run the same command again to resume"
            return StoreError(text)
        return StoreError(f"{self.root / name}: {error.strerror or error}", error.errno in _TRANSIENT)


def open_store(uri: str, writer: str = "none") -> Store:
    """The store of an output folder: a path, file:// or the URI of an object store. Raises UsageError, StoreError.

    writer: name of the run that writes. Half-written files without one are only removed once they are old.
    """
    if is_remote(uri):
        from shared.storage.object_store import ObjectStore

        return ObjectStore(uri)
    return LocalStore(local_path(uri), writer)


def local_path(uri: str) -> str:
    """The path of a local file or folder, also from file://. Raises UsageError for any other URI."""
    path = uri.removeprefix("file://")
    if "://" in path or (":" in path and path.partition(":")[0] in SCHEMES):
        raise UsageError(f"{uri}: an output must be a local path, {EXAMPLES}")
    return path
