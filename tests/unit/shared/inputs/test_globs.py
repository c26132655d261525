"""A glob means the same on disk and in S3, and nothing in a folder is left out without a word."""

from __future__ import annotations

import glob
import logging
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shared.errors import InputError
from shared.inputs.table_files import SUFFIXES
from shared.storage.input_files import expand, matches

FILES = ["a.csv", "b.CSV", ".hidden.csv", "d/a.csv", "d/x.y.csv", "d/e/a.tsv", "d/e/ab.csv", ".git/a.csv", "d/.h/c.csv"]
parts = st.lists(st.sampled_from(["*", "a", "b", ".csv", ".", "?", "[ab]", "[!a]"]), min_size=1, max_size=3).map(
    "".join
)
patterns = st.lists(st.one_of(st.just("**"), st.just("d"), parts), min_size=1, max_size=4).map("/".join)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("text\na\n")
    return root


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(patterns)
@example("a.csv/**")
def test_a_key_matches_where_a_file_would(tree: Path, pattern: str) -> None:
    if any(part in (".", "..") for part in pattern.split("/")):
        return
    # `glob` also answers `a.csv/**` with `a.csv/`, which no key and no path of a file looks like.
    found = {name for name in glob.glob(pattern, root_dir=tree, recursive=True) if not name.endswith("/")}
    found = {name for name in found if (tree / name).is_file()}
    assert {name for name in FILES if matches(name, pattern)} == found


def test_a_file_is_no_folder_of_a_glob(tree: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        expand([f"{tree}/a.csv/**"], SUFFIXES)


def test_a_subfolder_with_data_is_named(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert [os.path.basename(name) for name in expand([str(tree)], SUFFIXES)] == ["a.csv", "b.CSV"]
    (record,) = caplog.records
    assert record.message == "subfolder_not_read"
    assert len(expand([f"{tree}/**"], SUFFIXES)) == 6
