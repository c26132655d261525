"""Files of an output folder behind one small interface. Local disk and NFS; an object store is a second class.

Two writes exist: `put` replaces a file atomically, `put_if_absent` creates it only if nothing of that name exists.
Both leave either the whole file or nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from pathlib import Path

from shared.errors import StoreError, UsageError

PARTIAL = ".partial-"
_TRANSIENT = {errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT, errno.ESTALE, errno.EBUSY}


class LocalStore:
    """A folder on a disk that supports hard links and atomic rename."""

    def __init__(self, root: str) -> None:
        self.root = Path(root)
        self.uri = str(self.root)

    def local_path(self, name: str) -> Path:
        """Where a file stands."""
        return self.root / name

    def exists(self, name: str) -> bool:
        """Whether a file of that name exists."""
        return (self.root / name).exists()

    def read(self, name: str) -> bytes:
        """Content of a file. Raises StoreError."""
        try:
            return (self.root / name).read_bytes()
        except OSError as error:
            raise self._error(name, error) from error

    def list(self, prefix: str) -> list[str]:
        """Names of the whole files under a folder, sorted; empty when there is none."""
        folder = self.root / prefix
        if not folder.is_dir():
            return []
        return sorted(f"{prefix}/{one.name}" for one in folder.iterdir() if one.is_file() and PARTIAL not in one.name)

    def put(self, name: str, content: bytes) -> None:
        """Write or replace a file as a whole. Raises StoreError."""
        temporary = self._write_partial(name, content)
        try:
            temporary.replace(self.root / name)
        except OSError as error:
            raise self._error(name, error) from error

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """Create a file; False, and nothing changed, when one of that name exists."""
        temporary = self._write_partial(name, content)
        try:
            os.link(temporary, self.root / name)
        except FileExistsError:
            return False
        except OSError as error:
            raise self._error(name, error) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        return True

    def delete(self, name: str) -> None:
        """Remove a file; nothing happens when it is not there."""
        (self.root / name).unlink(missing_ok=True)

    def remove_partials(self, older_than_seconds: float, now: float) -> int:
        """Remove what killed writers left; returns how many files."""
        count = 0
        for one in self.root.glob(f"*/*{PARTIAL}*"):
            with contextlib.suppress(OSError):
                if now - one.stat().st_mtime > older_than_seconds:
                    one.unlink()
                    count += 1
        return count

    def _write_partial(self, name: str, content: bytes) -> Path:
        path = self.root / name
        temporary = path.with_name(f"{path.name}{PARTIAL}{uuid.uuid4().hex}")
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
            text = f"no space left for {self.root / name}; free some and run the same command again: it resumes"
            return StoreError(text)
        return StoreError(f"{self.root / name}: {error.strerror or error}", error.errno in _TRANSIENT)


def open_store(uri: str) -> LocalStore:
    """The store of an output folder. Raises UsageError for a scheme that is not supported."""
    if "://" in uri and not uri.startswith("file://"):
        raise UsageError(f"--output {uri}: only local folders are supported in this version")
    return LocalStore(uri.removeprefix("file://"))
