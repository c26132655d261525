"""The changelog follows Keep a Changelog, and its newest release is the version of the package."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"^## (.+)$", CHANGELOG, flags=re.M)
RELEASE = re.compile(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d{2}-\d{2})")
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_unreleased_comes_first_and_every_other_section_is_a_dated_release() -> None:
    assert HEADINGS[0] == "[Unreleased]"
    releases = [RELEASE.fullmatch(heading) for heading in HEADINGS[1:]]
    assert releases
    assert all(releases), HEADINGS
    dates = [one[2] for one in releases if one]
    assert dates == sorted(dates, reverse=True)


def test_changes_are_grouped_by_the_known_kinds() -> None:
    assert set(re.findall(r"^### (.+)$", CHANGELOG, flags=re.M)) <= KINDS


def test_the_version_is_the_newest_release() -> None:
    newest = RELEASE.fullmatch(HEADINGS[1])
    assert newest is not None
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (project["version"], citation["version"]) == (newest[1], newest[1])
    assert str(citation["date-released"]) == newest[2]
