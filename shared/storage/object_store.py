"""An output folder in an object store: s3://bucket/prefix, gs://bucket/prefix or az://container/prefix.

Objects appear atomically. Commits and the manifest are created by conditional puts. Up to `LARGEST_PUT` an object is
one request, so a killed writer leaves nothing behind; the parts of a larger, unfinished upload are hidden, and removed
by the bucket's lifecycle rule.
"""

from __future__ import annotations

import builtins
from typing import Any

from shared.errors import StoreError
from shared.storage.objects import (
    BLOCK_BYTES,
    LARGEST_PUT,
    already_exists,
    client_of,
    is_store_error,
    split_uri,
    with_retries,
)


class ObjectStore:
    """A prefix of a bucket or container."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._root, self._prefix = split_uri(uri)
        self._client = client_of(self._root)

    def exists(self, name: str) -> bool:
        """Whether an object of that name exists."""
        return self._size(name) is not None

    def read(self, name: str) -> bytes:
        """Content of an object. Raises StoreError."""
        import obstore

        key, where = self._key(name), f"read {self.uri}/{name}"

        def begin() -> tuple[int, str | None, bytes]:
            found = obstore.get(self._client, key)
            size, tag = found.meta["size"], found.meta["e_tag"]
            if size > BLOCK_BYTES:
                return size, tag, b""
            return size, tag, _whole(bytes(found.bytes()), size)

        def block(start: int, size: int) -> bytes:
            length = min(BLOCK_BYTES, size - start)

            def get() -> bytes:
                return _whole(bytes(obstore.get_range(self._client, key, start=start, length=length)), length)

            return with_retries(f"{where} at byte {start}", get)

        try:
            size, tag, content = with_retries(where, begin)
            if size <= BLOCK_BYTES:
                return content
            blocks = [block(start, size) for start in range(0, size, BLOCK_BYTES)]
            if with_retries(where, lambda: obstore.head(self._client, key)["e_tag"]) != tag:
                raise StoreError(f"{self.uri}/{name} was replaced while it was being read", True)
        except FileNotFoundError as error:
            raise StoreError(f"{self.uri}/{name}: no such object") from error
        return b"".join(blocks)

    def sizes(self, prefix: str) -> dict[str, int]:
        """Names and sizes in bytes of the objects directly in a folder, sorted by name; {} without the folder."""
        folder = self._key(prefix)
        objects = self._list(folder)["objects"]
        found = {one["path"]: one["size"] for one in objects if one["path"].startswith(f"{folder}/")}
        return {f"{prefix}/{path.removeprefix(f'{folder}/')}": size for path, size in sorted(found.items())}

    def list(self, prefix: str) -> list[str]:
        """Names of the objects directly in a folder, sorted."""
        return list(self.sizes(prefix))

    def put(self, name: str, content: bytes) -> None:
        """Write or replace an object, then check its size. Raises StoreError."""
        import obstore

        is_large = len(content) > LARGEST_PUT
        client = client_of(self._root, patient=len(content) > BLOCK_BYTES)

        def put() -> None:
            # Parts of a multiple of BLOCK_BYTES: at most 10,000 of them are allowed.
            parts = {"chunk_size": 4 * BLOCK_BYTES, "max_concurrency": 4} if is_large else {}
            obstore.put(client, self._key(name), content, use_multipart=is_large, **parts)
            size = self._size(name)
            if size != len(content):
                raise OSError(f"{len(content)} bytes were written, but the object has {size}")

        with_retries(f"write {self.uri}/{name}", put)

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """Create an object; returns False and changes nothing if one of that name exists.

        If a response is lost, the retry may find the object created by the first attempt and return False: callers
        compare the existing content with what they intended to write.
        """
        import obstore

        def put() -> bool:
            try:
                obstore.put(self._client, self._key(name), content, mode="create", use_multipart=False)
            except Exception as error:
                if is_store_error(error) and already_exists(error):
                    return False
                if "status code: 501" in str(error):
                    raise StoreError(
                        f"{self.uri}: this store does not support conditional writes (If-None-Match), which commits "
                        "need; use a store that does"
                    ) from error
                raise
            return True

        return with_retries(f"create {self.uri}/{name}", put)

    def delete(self, name: str) -> None:
        """Remove an object, if it exists."""
        import obstore

        def delete() -> None:
            try:
                obstore.delete(self._client, self._key(name))
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise

        with_retries(f"delete {self.uri}/{name}", delete)

    def entries(self) -> builtins.list[str]:
        """Names directly under the prefix, sorted; those of folders end in "/". Raises StoreError."""
        found, prefix = self._list(self._prefix), f"{self._prefix}/" if self._prefix else ""
        files = [one["path"].removeprefix(prefix) for one in found["objects"] if one["path"] != self._prefix]
        return sorted([*files, *(f"{one.removeprefix(prefix)}/" for one in found["common_prefixes"])])

    def remove_partials(self, live_writers: frozenset[str], older_than_seconds: float) -> int:
        """Nothing to remove: objects appear atomically."""
        return 0

    def _list(self, folder: str) -> Any:
        import obstore

        return with_retries(f"list {self.uri}", lambda: obstore.list_with_delimiter(self._client, folder or None))

    def _size(self, name: str) -> int | None:
        import obstore

        def size() -> int:
            return int(obstore.head(self._client, self._key(name))["size"])

        try:
            return with_retries(f"get the size of {self.uri}/{name}", size)
        except FileNotFoundError:
            return None

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name


def _whole(content: bytes, size: int) -> bytes:
    if len(content) != size:
        raise OSError(f"got {len(content)} of {size} bytes")
    return content
