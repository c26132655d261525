"""One output file that is there as a whole or not at all, on a local disk or in an object store."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from shared.errors import StoreError
from shared.storage.objects import is_remote, upload
from shared.storage.store import local_path


@contextlib.contextmanager
def whole_file(uri: str) -> Iterator[Path]:
    """A path to write to; what was written there becomes the file `uri` if the block ends without an error.

    Raises StoreError, also for an OSError of the block; UsageError for a URI that is neither a path nor in a store.
    """
    if is_remote(uri):
        with tempfile.TemporaryDirectory(prefix="tinybert-") as folder:
            path = Path(folder) / "file"
            with _errors_of(uri):
                yield path
            upload(path, uri)
        return
    target = Path(local_path(uri))
    temporary = target.with_name(f"{target.name}.partial-{os.getpid()}")
    with _errors_of(uri):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _errors_of(uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{uri}: {error.strerror or error}") from error
