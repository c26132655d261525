"""Output files that appear atomically, on a local disk or in an object store.

Trade-off: several files appear one after another, the most important last.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from shared.errors import StoreError, UsageError
from shared.storage.objects import is_remote, split_uri, upload
from shared.storage.store import local_path, open_store


def check_target(uri: str, option: str) -> None:
    """Check before any work whether a file could be written there, without changing anything.

    Raises UsageError for a URI that is neither a path nor in a store, or names no file; StoreError for a bucket that
    does not exist or cannot be reached.
    """
    if not is_remote(uri):
        if Path(local_path(uri)).is_dir():
            raise UsageError(f"{option} {uri} is a folder: name a file in it")
        return
    root, key = split_uri(uri)
    if not key or uri.endswith("/"):
        raise UsageError(f"{option} {uri}: the file name is missing; use {root}/folder/name")
    folder, _ = _split(uri)
    open_store(folder).entries()


@contextlib.contextmanager
def whole_file(uri: str) -> Iterator[Path]:
    """A path to write to; its content becomes the file `uri` if the block ends without an error.

    Raises as `whole_files` does.
    """
    with whole_files(uri) as (path,):
        yield path


@contextlib.contextmanager
def whole_files(*uris: str) -> Iterator[Sequence[Path]]:
    """Paths to write to; their contents become the files `uris`, in this order, if the block ends without an error.

    If nothing was written to a path, an older file at its URI is removed. uris: files of one folder or prefix, the most
    important last. Raises StoreError, also for an OSError of the block; if only the upload failed, it names the folder
    that keeps the files. Raises UsageError for a URI that is neither a path nor in a store.
    """
    target = uris[-1]
    if is_remote(target):
        with _errors_of(target):
            folder = Path(tempfile.mkdtemp(prefix="tinybert-"))
        try:
            paths = [folder / PurePosixPath(uri).name for uri in uris]
            with _errors_of(target):
                yield paths
            _upload(paths, uris)
        except _UploadError as error:
            # It may be hours of work.
            raise StoreError(f"{error}; the output is kept in {folder}") from error
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)
        return
    targets = [Path(local_path(uri)) for uri in uris]
    paths = [one.with_name(f"{one.name}.partial-{os.getpid()}") for one in targets]
    with _errors_of(target):
        try:
            targets[-1].parent.mkdir(parents=True, exist_ok=True)
            yield paths
            for path, one in zip(paths, targets, strict=True):
                if path.exists():
                    path.replace(one)
                else:
                    one.unlink(missing_ok=True)
        finally:
            for path in paths:
                path.unlink(missing_ok=True)


class _UploadError(StoreError):
    """The block succeeded, but its files could not be uploaded."""


def _upload(paths: Sequence[Path], uris: Sequence[str]) -> None:
    try:
        for path, uri in zip(paths, uris, strict=True):
            if path.exists():
                upload(path, uri)
            else:
                folder, name = _split(uri)
                open_store(folder).delete(name)
    except StoreError as error:
        raise _UploadError(str(error), error.is_transient) from error


def _split(uri: str) -> tuple[str, str]:
    folder, _, name = uri.rstrip("/").rpartition("/")
    return folder, name


@contextlib.contextmanager
def _errors_of(uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{uri}: {error.strerror or error}") from error
