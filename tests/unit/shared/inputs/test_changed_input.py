"""An input that changes between the two passes: no changed row reaches a shard."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from augment_service.job.shard_work import shard_work
from shared.errors import InputError
from shared.inputs.options import InputOptions
from shared.inputs.sources import Source, open_source

SHARD_ROWS = 4


def source_of(path: Path, lines: list[str]) -> Source:
    path.write_text("text\n" + "".join(f"{line}\n" for line in lines))
    return open_source(InputOptions(input=(str(path),), text_column=("text",), shard_rows=SHARD_ROWS))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(
    num_rows=st.integers(1, 13),
    change=st.sampled_from(["replace", "drop", "insert", "append", "swap"]),
    at=st.integers(0, 12),
)
def test_only_shards_of_unchanged_rows_are_handed_out(tmp_path: Path, num_rows: int, change: str, at: int) -> None:
    path, lines = tmp_path / "in.csv", [f"row {number}" for number in range(num_rows)]
    source, at, changed = source_of(path, lines), at % num_rows, list(lines)
    if change == "replace":
        changed[at] = "other"
    elif change == "drop":
        del changed[at]
    elif change == "insert":
        changed.insert(at, "other")
    elif change == "append":
        changed.append("other")
    else:
        changed[at], changed[0] = changed[0], changed[at]
    path.write_text("text\n" + "".join(f"{line}\n" for line in changed))
    handed_out: list[str] = []

    def read() -> None:
        for work in shard_work(source, SHARD_ROWS, set(range(4))):
            handed_out.extend(row.text_a for row in work.rows)

    if changed == lines:
        read()
        assert handed_out == lines
    else:
        with pytest.raises(InputError, match="changed while it was being read"):
            read()
        assert handed_out == lines[: len(handed_out)]


def test_an_unchanged_input_is_read_as_often_as_needed(tmp_path: Path) -> None:
    source = source_of(tmp_path / "in.csv", [f"row {number}" for number in range(9)])
    assert len(source.digests) == 3
    assert [len(list(source.rows())) for _ in range(2)] == [9, 9]
