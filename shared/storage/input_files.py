"""Input files by path or URI: the files that an `--input` names, and the bytes of a file on disk or in an object store.

An object is read in blocks, and each block is retried separately, so that a fault in the middle of an input of many
gigabytes does not end the job.
"""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import io
import json
import logging
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import Field

from shared.errors import InputError, StoreError, UsageError
from shared.storage.hub import HUB, hub_files
from shared.storage.objects import EXAMPLES, already_exists, client_of, is_remote, split_uri, with_retries

logger = logging.getLogger(__name__)

BLOCK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """An input file: its path or URI (`file` in the manifest), and the hex digest of its bytes."""

    path: Annotated[str, Field(alias="file")]
    sha256: str

    @classmethod
    def of(cls, path: str) -> InputFile:
        """Read and hash a file. Raises InputError, StoreError."""
        return cls(path=path, sha256=sha256_of(path))


def expand(inputs: Sequence[str], suffixes: Collection[str]) -> list[str]:
    """Files, folders and globs -> files, in order; of a folder, the files with a known suffix. Raises InputError."""
    paths: list[str] = []
    for one in inputs:
        one = one.removeprefix("file://")
        if is_remote(one):
            found = _expand_remote(one, suffixes)
        elif one.startswith(HUB):
            found = hub_files(one)
        elif "://" in one:
            raise UsageError(f"--input {one}: an input must be a local path, {EXAMPLES}, or hf://OWNER/NAME:SPLIT")
        else:
            found = _expand_local(one, suffixes)
        if not found:
            raise InputError(f"--input {one}: no files of a known type ({', '.join(suffixes)})")
        paths += found
    return paths


def open_binary(path: str | Path) -> io.BufferedReader:
    """The file's bytes, seekable. Raises InputError, StoreError."""
    try:
        if isinstance(path, str) and is_remote(path):
            return io.BufferedReader(_RemoteFile(path), BLOCK_BYTES)
        return open(path, "rb")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error


def sha256_of(path: str | Path) -> str:
    """Hex digest of a file's bytes, computed by streaming. Raises InputError, StoreError."""
    with open_binary(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _RemoteFile(io.RawIOBase):
    """An object as a seekable raw file; every read is a separate request, with retries. Raises StoreError."""

    def __init__(self, uri: str) -> None:
        super().__init__()
        import obstore

        self._uri, self._position = uri, 0
        root, self._key = split_uri(uri)
        self._client = client_of(root)
        try:
            found = with_retries(f"open {uri}", lambda: obstore.head(self._client, self._key))
            self._size, self._tag = int(found["size"]), found["e_tag"]
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
            import obstore

            options = {"range": (self._position, self._position + wanted), "if_match": self._tag}
            content = bytes(obstore.get(self._client, self._key, options=options).bytes())
            if len(content) != wanted:
                raise OSError(f"got {len(content)} of {wanted} bytes")
            return content

        try:
            content = with_retries(f"read {self._uri} at byte {self._position}", read)
        except FileNotFoundError as error:
            raise StoreError(f"{self._uri} was deleted while it was being read") from error
        except Exception as error:
            if not already_exists(error):
                raise
            raise InputError(f"{self._uri} was replaced while it was being read") from error
        buffer[:wanted] = content
        self._position += wanted
        return wanted


def _is_data(path: str, suffixes: Collection[str]) -> bool:
    """Whether a folder's file is read: it has a known suffix, ignoring case, and is not hidden."""
    name = PurePosixPath(path).name
    return not name.startswith(".") and name.lower().endswith(tuple(suffixes))


def _of_folder(folder: str, names: Sequence[str], suffixes: Collection[str]) -> list[str]:
    """The names of a folder's data files. Raises InputError for a folder with several splits."""
    if "dataset_dict.json" in names:
        try:
            with open_binary(f"{folder}/dataset_dict.json") as file:
                splits = ", ".join(json.load(file)["splits"])
        except (ValueError, KeyError, TypeError):
            splits = "unknown"
        raise InputError(f"--input {folder}: has several splits ({splits}); pass the folder of one of them")
    if "state.json" in names and "dataset_info.json" in names:
        return sorted(name for name in names if name.endswith(".arrow"))
    return sorted(name for name in names if _is_data(name, suffixes))


def _expand_local(one: str, suffixes: Collection[str]) -> list[str]:
    path = Path(one)
    if path.is_dir():
        children = sorted(path.iterdir())
        found = _of_folder(one.rstrip("/"), [child.name for child in children if child.is_file()], suffixes)
        deeper = [child for child in children if child.is_dir() and child.name[0] not in "._"]
        for child in deeper:
            if any(inner.is_file() and _is_data(inner.name, suffixes) for inner in child.rglob("*")):
                logger.warning("subfolder_not_read", extra={"fields": {"folder": child, "to_read_it": f"{one}/**"}})
        return [str(path / name) for name in found]
    if not glob.has_magic(one) or path.exists():
        if not path.is_file():
            raise InputError(f"--input {one}: no such file")
        return [one]
    found = _files_matching(one)
    if not found:
        raise InputError(f"--input {one}: no such file")
    # A pattern without a suffix selects the data files among its matches.
    return found if _is_data(one, suffixes) else [name for name in found if _is_data(name, suffixes)]


def _files_matching(pattern: str) -> list[str]:
    """Files matching a glob. For `a.csv/**`, `glob` returns `a.csv/` even if that is a file; such names are dropped."""
    found = glob.glob(pattern, recursive=True)
    return sorted(name for name in found if not name.endswith(os.sep) and Path(name).is_file())


def _expand_remote(uri: str, suffixes: Collection[str]) -> list[str]:
    """Files named by a key, a prefix (as a folder) or a glob over the segments of a key."""
    root, key = split_uri(uri)
    parts = key.split("/")
    magic = next((index for index, part in enumerate(parts) if glob.has_magic(part)), None)
    if magic is None and _is_data(key, suffixes):
        return [f"{root}/{key}"]
    base = "/".join(parts[:magic])
    is_deep = magic is not None and (magic < len(parts) - 1 or "**" in parts[magic])
    keys = _keys(root, base, is_deep)
    if magic is None:
        folder = f"{root}/{base}".rstrip("/")
        names = _of_folder(folder, [PurePosixPath(one).name for one in keys], suffixes)
        return [f"{folder}/{name}" for name in names]
    found = [one for one in keys if matches(one, key)]
    return [f"{root}/{one}" for one in found if _is_data(key, suffixes) or _is_data(one, suffixes)]


def _keys(root: str, base: str, is_deep: bool) -> list[str]:
    """Keys of the objects in a folder, sorted; is_deep: including subfolders. Raises StoreError."""
    import obstore

    client = client_of(root)

    def listed() -> list[str]:
        if is_deep:
            return sorted(one["path"] for page in obstore.list(client, base or None, chunk_size=1000) for one in page)
        return sorted(one["path"] for one in obstore.list_with_delimiter(client, base or None)["objects"])

    keys = with_retries(f"list {root}/{base}", listed)
    return [key for key in keys if key != base and not key.endswith("/")]


def matches(key: str, pattern: str) -> bool:
    """Whether a glob matches a key as it would a file on disk: `*` stays within a segment, `**` spans any number.

    Hidden folders and files match only a segment that begins with a dot.
    """
    return _match(key.split("/"), pattern.split("/"))


def _match(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns or not parts:
        return not patterns and not parts
    first, *others = patterns
    if first != "**":
        is_found = first.startswith(".") or not parts[0].startswith(".")
        return is_found and fnmatch.fnmatchcase(parts[0], first) and _match(parts[1:], others)
    if not others:
        return not any(part.startswith(".") for part in parts)
    return _match(parts, others) or (not parts[0].startswith(".") and _match(parts[1:], patterns))
