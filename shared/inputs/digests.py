"""Digests of an input's rows per shard, to check that the second pass reads the same rows as the first."""

from __future__ import annotations

import hashlib

from shared.inputs.arrow_cells import ArrowCell
from shared.inputs.rows import QuarantinedRow, SourceRow


class RowDigests:
    """Digests of consecutive groups of `group_rows` rows; the last group may be shorter."""

    def __init__(self, group_rows: int) -> None:
        self._group_rows, self._rows = group_rows, list[object]()

    def add(self, row: SourceRow | QuarantinedRow) -> bytes | None:
        """Add the next row; returns the digest of the group that it completes, if any."""
        if isinstance(row, SourceRow):
            rest = [cell.identity() if isinstance(cell, ArrowCell) else cell for cell in row.rest] if row.rest else None
            self._rows.append((row.source_id, row.text_a, row.text_b, row.label, rest))
        else:
            self._rows.append((row.position, row.reason, row.raw))
        return self.finish() if len(self._rows) == self._group_rows else None

    def finish(self) -> bytes | None:
        """Digest of the rows since the last complete group; None if there are none."""
        if not self._rows:
            return None
        content = repr(self._rows).encode("utf-8", "surrogatepass")
        self._rows.clear()
        return hashlib.blake2b(content, digest_size=16).digest()
