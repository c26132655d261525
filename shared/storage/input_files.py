"""Input files by path or URI: the files that an `--input` names, and the bytes of a file on disk or in S3.

A file in S3 is read in blocks, and each block is retried on its own, so that a fault in the middle of an input of many
gigabytes does not end the job.
"""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from shared.errors import InputError, StoreError, UsageError

S3 = "s3://"
BLOCK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """An input file: its path or URI, which the manifest calls `file`, and the hex digest of its bytes."""

    path: Annotated[str, Field(alias="file")]
    sha256: str

    @classmethod
    def of(cls, path: str) -> InputFile:
        """Read and hash a file. Raises InputError, StoreError."""
        return cls(path=path, sha256=sha256_of(path))


def expand(inputs: Sequence[str], suffixes: Collection[str]) -> list[str]:
    """Files, folders and globs -> files, in order; of a folder, its files with a known suffix. Raises InputError."""
    paths: list[str] = []
    for one in inputs:
        one = one.removeprefix("file://")
        if one.startswith(S3):
            found = _expand_s3(one, suffixes)
        elif "://" in one:
            raise UsageError(f"--input {one}: an input must be a local path or s3://bucket/key")
        else:
            found = _expand_local(one, suffixes)
        if not found:
            raise InputError(f"--input {one}: no files of a known type ({', '.join(suffixes)})")
        paths += found
    return paths


def open_binary(path: str | Path) -> io.BufferedReader:
    """The file's bytes, seekable. Raises InputError, StoreError."""
    try:
        if isinstance(path, str) and path.startswith(S3):
            return io.BufferedReader(_S3File(path), BLOCK_BYTES)
        return open(path, "rb")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error


def sha256_of(path: str | Path) -> str:
    """Hex digest of a file's bytes, which are never held in memory as a whole. Raises InputError, StoreError."""
    with open_binary(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _S3File(io.RawIOBase):
    """An object as a seekable raw file; every read is a request of its own, with retries. Raises StoreError."""

    def __init__(self, uri: str) -> None:
        from shared.storage.s3 import file_system, split_uri, with_retries

        super().__init__()
        self._uri, self._position = uri, 0
        self._path = "/".join(split_uri(uri))
        self._file: Any = None
        self._retry, self._file_system = with_retries, file_system()
        try:
            self._size = self._retry(f"open {uri}", lambda: int(self._reopen().size()))
        except FileNotFoundError as error:
            raise InputError(f"--input {uri}: no such file") from error

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move; returns the new position."""
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer from the current position; returns the number of bytes read, 0 at the end."""
        wanted = min(len(buffer), self._size - self._position)
        if wanted <= 0:
            return 0

        def read() -> bytes:
            file = self._file or self._reopen()
            try:
                content: bytes = file.read_at(wanted, self._position)
            except OSError:
                self._file = None
                raise
            if len(content) != wanted:
                self._file = None
                raise OSError(f"got {len(content)} of {wanted} bytes")
            return content

        try:
            content = self._retry(f"read {self._uri} at byte {self._position}", read)
        except FileNotFoundError as error:
            raise StoreError(f"{self._uri} was deleted while it was being read") from error
        buffer[:wanted] = content
        self._position += wanted
        return wanted

    def _reopen(self) -> Any:
        self._file = self._file_system.open_input_file(self._path)
        return self._file


def _expand_local(one: str, suffixes: Collection[str]) -> list[str]:
    if Path(one).is_dir():
        return sorted(str(path) for path in Path(one).iterdir() if path.suffix in suffixes and path.is_file())
    found = sorted(glob.glob(one)) if glob.has_magic(one) and not Path(one).exists() else [one]
    for path in found:
        if not Path(path).is_file():
            raise InputError(f"--input {path}: no such file")
    return found


def _expand_s3(uri: str, suffixes: Collection[str]) -> list[str]:
    """Files named by a key, a prefix (as a folder) or a glob in the last part of a key."""
    from pyarrow import fs

    from shared.storage.s3 import file_system, split_uri, with_retries

    bucket, key = split_uri(uri)
    folder, _, last = key.rpartition("/")
    has_glob = glob.has_magic(last)
    if not has_glob and Path(last).suffix in suffixes:
        return [f"{S3}{bucket}/{key}"]
    base = f"{bucket}/{folder if has_glob else key}".rstrip("/")
    selector = fs.FileSelector(base, allow_not_found=True)
    infos = with_retries(f"list {S3}{base}", lambda: file_system().get_file_info(selector))
    names = sorted(one.base_name for one in infos if one.type == fs.FileType.File)
    if has_glob:
        return [f"{S3}{base}/{name}" for name in names if fnmatch.fnmatchcase(name, last)]
    return [f"{S3}{base}/{name}" for name in names if Path(name).suffix in suffixes]
