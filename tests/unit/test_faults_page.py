"""docs/faults.md names tests that exist."""

from __future__ import annotations

import re

from tests.support.command import ROOT


def test_every_fault_names_tests_that_exist() -> None:
    text = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    rows = [(int(found[1]), found[0]) for found in re.finditer(r"^\| (\d+) \|.*", text, re.MULTILINE)]
    assert [number for number, _ in rows] == [*range(1, 20), *range(1, 17)]
    for number, row in rows:
        tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert tests, number
        for path, name in tests:
            assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{name}"
