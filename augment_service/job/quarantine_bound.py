"""`--max-quarantine`: if most rows end up in quarantine, something other than the rows is wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from shared.errors import InputError
from shared.shards import Commit
from shared.storage.store import Store

MIN_ROWS = 100
"""With fewer rows than this, the share is not meaningful."""
SHOWN_REASONS = 3


@dataclass(slots=True)
class QuarantineBound:
    """Counts the rows of commits. share: largest allowed share of rows in quarantine, 0 to 1."""

    store: Store
    share: float
    rows: int = 0
    quarantined: int = 0
    _files: list[str] = field(default_factory=list)

    def add(self, commit: Commit) -> None:
        """Count one more shard."""
        self.rows += commit.sources + commit.quarantined
        self.quarantined += commit.quarantined
        if commit.quarantine_file and len(self._files) < SHOWN_REASONS:
            self._files.append(commit.quarantine_file)

    def check(self) -> None:
        """Raises InputError, with the first reasons, when too many of the rows so far are in quarantine."""
        if self.rows < MIN_ROWS or self.quarantined <= self.share * self.rows:
            return
        raise InputError(
            f"{self.quarantined:,} of {self.rows:,} rows were quarantined, more than --max-quarantine {self.share:g} "
            f"allows; the first reasons: {'; '.join(self._reasons())}. All of them are in {self.store.uri}/quarantine. "
            "If the input is meant to be like this, raise --max-quarantine and run again; otherwise fix the cause and "
            "use a new --output"
        )

    def _reasons(self) -> list[str]:
        reasons: list[str] = []
        for name in self._files:
            for line in self.store.read(name).decode("utf-8", "replace").splitlines():
                reasons.append(str(json.loads(line)["reason"])[:120])
                if len(reasons) == SHOWN_REASONS:
                    return reasons
        return reasons
