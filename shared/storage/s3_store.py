"""An output folder under s3://bucket/prefix.

Data is written through pyarrow's file system, and its size is checked afterwards. Commits and the manifest are created
by conditional puts (`If-None-Match: *`) through boto3. An object is visible as a whole or not at all, so the only thing
that can be half-written is an upload that was never finished.
"""

from __future__ import annotations

import builtins
import functools
from datetime import UTC, datetime
from typing import Any

from shared.errors import StoreError
from shared.output_names import is_own
from shared.storage.s3 import client, file_system, split_uri, with_retries


class S3Store:
    """A prefix of a bucket."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._bucket, self._prefix = split_uri(uri)
        self._fs, self._client = file_system(), client()

    def exists(self, name: str) -> bool:
        """Whether an object of that name exists."""
        return self._size(name) is not None

    def read(self, name: str) -> bytes:
        """Content of an object. Raises StoreError."""

        def read() -> bytes:
            with self._fs.open_input_file(self._path(name)) as file:
                size: int = file.size()
                content: bytes = file.read()
            if len(content) != size:
                raise OSError(f"got {len(content)} of {size} bytes")
            return content

        try:
            return with_retries(f"read {self.uri}/{name}", read)
        except FileNotFoundError as error:
            raise StoreError(f"{self.uri}/{name}: no such object") from error

    def sizes(self, prefix: str) -> dict[str, int]:
        """Names and sizes in bytes of the objects directly in a folder, sorted by name; {} without the folder."""
        from pyarrow import fs

        folder = self._path(prefix)
        selector = fs.FileSelector(folder, allow_not_found=True)
        found = with_retries(f"list {self.uri}/{prefix}", lambda: self._fs.get_file_info(selector))
        files = (one for one in found if one.type == fs.FileType.File)
        return dict(sorted((f"{prefix}/{one.base_name}", int(one.size)) for one in files))

    def list(self, prefix: str) -> list[str]:
        """Names of the objects directly in a folder, sorted."""
        return list(self.sizes(prefix))

    def put(self, name: str, content: bytes) -> None:
        """Write or replace an object, then check its size. Raises StoreError."""

        def put() -> None:
            with self._fs.open_output_stream(self._path(name)) as stream:
                stream.write(content)
            size = self._size(name)
            if size != len(content):
                raise OSError(f"{len(content)} bytes were written, but the object has {size}")

        with_retries(f"write {self.uri}/{name}", put)

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """Create an object; returns False and changes nothing if one of that name exists.

        If a response is lost, the retry may find the object that the first try created, and returns False: callers
        compare the existing content with what they intended to write.
        """

        def put() -> bool:
            try:
                self._client.put_object(Bucket=self._bucket, Key=self._key(name), Body=content, IfNoneMatch="*")
            except self._client.exceptions.ClientError as error:
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
                if status == 412:
                    return False
                if status == 501:
                    raise StoreError(
                        f"{self.uri}: this store lacks conditional writes (If-None-Match), so commits would not be safe"
                    ) from error
                raise
            return True

        return with_retries(f"create {self.uri}/{name}", put)

    def delete(self, name: str) -> None:
        """Remove an object, if it exists."""
        # Not with pyarrow, which leaves an empty object in place of the folder.
        with_retries(
            f"delete {self.uri}/{name}", lambda: self._client.delete_object(Bucket=self._bucket, Key=self._key(name))
        )

    def entries(self) -> builtins.list[str]:
        """Names directly under the prefix, sorted; those of folders end in "/". Raises StoreError."""
        from pyarrow import fs

        selector = fs.FileSelector(f"{self._bucket}/{self._prefix}".rstrip("/"), allow_not_found=True)
        found = with_retries(f"list {self.uri}", lambda: self._fs.get_file_info(selector))
        return sorted(f"{one.base_name}/" if one.type == fs.FileType.Directory else one.base_name for one in found)

    def remove_partials(self, live_writers: frozenset[str], older_than_seconds: float) -> int:
        """Abort unfinished uploads of our own files that were started longer ago than that; returns how many."""

        def uploads() -> list[dict[str, Any]]:
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=self._key("")
            )
            return [one for page in pages for one in page.get("Uploads", [])]

        now = datetime.now(UTC)
        old = [
            one
            for one in with_retries(f"list uploads of {self.uri}", uploads)
            if is_own(one["Key"].removeprefix(self._key("")))
            and (now - one["Initiated"].astimezone(UTC)).total_seconds() > older_than_seconds
        ]
        for one in old:
            target = {"Bucket": self._bucket, "Key": one["Key"], "UploadId": one["UploadId"]}
            abort = functools.partial(self._client.abort_multipart_upload, **target)
            with_retries(f"abort the upload of {one['Key']}", abort)
        return len(old)

    def _size(self, name: str) -> int | None:
        from pyarrow import fs

        info = with_retries(f"get the size of {self.uri}/{name}", lambda: self._fs.get_file_info(self._path(name)))
        return int(info.size) if info.type == fs.FileType.File else None

    def _path(self, name: str) -> str:
        return f"{self._bucket}/{self._key(name)}"

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name
