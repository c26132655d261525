"""Digests of an input's rows, a shard at a time: what is read for a shard must be what the first pass saw."""

from __future__ import annotations

import hashlib

from shared.inputs.arrow_cells import ArrowCell
from shared.inputs.rows import QuarantinedRow, SourceRow


class RowDigests:
    """Digests of consecutive groups of `group_rows` rows; the last group may be shorter."""

    def __init__(self, group_rows: int) -> None:
        self._group_rows, self._count, self._hash = group_rows, 0, hashlib.blake2b(digest_size=16)

    def add(self, row: SourceRow | QuarantinedRow) -> bytes | None:
        """Take the next row; returns the digest of the group that it completes, if any."""
        if isinstance(row, SourceRow):
            rest = tuple(cell.identity() if isinstance(cell, ArrowCell) else cell for cell in row.rest)
            fields = (row.source_id, row.text_a, row.text_b, row.label, rest)
            self._hash.update(repr(fields).encode("utf-8", "surrogatepass"))
        else:
            self._hash.update(repr((row.position, row.reason, row.raw)).encode("utf-8", "surrogatepass"))
        self._count += 1
        return self.finish() if self._count == self._group_rows else None

    def finish(self) -> bytes | None:
        """Digest of the rows since the last complete group; None if there are none."""
        if not self._count:
            return None
        digest = self._hash.digest()
        self._count, self._hash = 0, hashlib.blake2b(digest_size=16)
        return digest
