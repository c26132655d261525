"""Damaged tables of every format: rows are used or set aside, or the file is refused in one line."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.support.table_fuzz import run, seeds, try_file


@pytest.mark.parametrize("suffix", seeds())
def test_an_intact_file_is_read(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"x{suffix}").write_bytes(seeds()[suffix])
    outcome = try_file(tmp_path / f"x{suffix}")
    assert (outcome.used, outcome.set_aside, outcome.problem) == (12 if "unquoted" in suffix else 16, 0, "")


def test_damaged_files_lose_no_row_and_give_no_traceback(tmp_path: Path) -> None:
    totals: Counter[str] = Counter()
    for number, name, outcome in run(0, 1500, tmp_path):
        assert not outcome.problem, f"seed {number} ({name}): {outcome.problem}"
        totals += Counter(used=outcome.used, set_aside=outcome.set_aside, refused=outcome.refused)
    assert min(totals["used"], totals["set_aside"], totals["refused"]) > 100
