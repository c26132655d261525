"""The prose check finds banned phrases with their place, also across a line break, and leaves idiomatic ones alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "check_prose.py"


def hits(folder: Path, text: str) -> list[str]:
    path = folder / "page.md"
    path.write_text(text, encoding="utf-8")
    finished = subprocess.run([sys.executable, str(SCRIPT), str(path)], capture_output=True, text=True)
    assert finished.stderr == ""
    found = [line.removeprefix(f"{path}:").partition(" ->")[0] for line in finished.stdout.splitlines()]
    assert finished.returncode == int(bool(found))
    return found


def test_hits_have_a_line_and_a_suggestion(tmp_path: Path) -> None:
    text = "Results are the same in any company.\n\nDamaged shards are made anew beside the\nothers.\n"
    assert hits(tmp_path, text) == ["1: in any company", "3: beside", "3: made anew"]


def test_phrases_across_line_breaks_are_found(tmp_path: Path) -> None:
    assert hits(tmp_path, "# the file stands\n#   in the folder, and it is\n    # no JSON\n") == [
        "1: stands in",
        "2: is no",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "The job is no longer there, and there is no other.",
        "There is none. There\nare no rows.",
        "return found is None",
        "Besides, a stand-in is fine.",
    ],
)
def test_idiomatic_english_and_code_pass(tmp_path: Path, text: str) -> None:
    assert hits(tmp_path, text) == []
