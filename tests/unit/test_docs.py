"""The pages: links and anchors resolve, commands and `make` targets exist, Python blocks import names that exist."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.entrypoints import PROGRAMS, build_config, commands_in

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/**/*.md", "shared/**/*.md", "examples/*.md")
    for path in ROOT.glob(pattern)
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.M | re.S)
INLINE = re.compile(r"`(python -m [^`]+)`")
OPTION = re.compile(r"--[a-z][a-z-]*")


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def anchors_of(page: str) -> set[str]:
    """Anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", read(page)), flags=re.M)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def links_of(page: str) -> list[str]:
    return LINK.findall(FENCE.sub("", read(page)))


def commands_of(page: str) -> Iterator[tuple[list[str], bool]]:
    """Our commands on a page, and whether each is complete."""
    for _, block in FENCE.findall(read(page)):
        for line in block.replace("\\\n", " ").splitlines():
            if "python -m" in line:
                # Prompts of shown sessions, and comments.
                shell = line.removeprefix("$ ").partition(" #")[0]
                yield from ((command, "…" not in line) for command in commands_in(shell))
    for line in INLINE.findall(FENCE.sub("", read(page))):
        yield from ((command, False) for command in commands_in(line))


def options_of(program: str, name: str) -> set[str]:
    """Options of a command, from the generated reference."""
    section = read("docs/reference.md").partition(f"\n## {program} {name}\n")[2].partition("\n## ")[0]
    assert section, f"the reference has no command {program} {name}"
    return set(OPTION.findall(section))


def test_there_are_pages() -> None:
    assert {"README.md", "docs/architecture.md", "docs/tutorial.md", "CONTRIBUTING.md"} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_and_anchors_resolve(page: str) -> None:
    broken = []
    for link in links_of(page):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        is_anchor_known = not anchor or anchor in anchors_of(str(target.resolve().relative_to(ROOT)))
        if not target.exists() or not is_anchor_known:
            broken.append(link)
    assert broken == []


def test_a_wrong_anchor_would_be_found() -> None:
    assert "two-commands" in anchors_of("README.md")
    assert "three-commands" not in anchors_of("README.md")


@pytest.mark.parametrize("page", [page for page in PAGES if any(commands_of(page))])
def test_commands_exist_with_their_options(page: str) -> None:
    common = {"--config", "--json", "--log-format", "--log-level", "--debug", "--help"}
    for command, is_complete in commands_of(page):
        program, *rest = command
        if not rest or rest[0].startswith("--"):
            continue
        if is_complete and not {"--help", "--config"} & set(rest):
            build_config(command)
            continue
        named = {word.partition("=")[0] for word in rest if OPTION.match(word)}
        assert named - common <= options_of(program, rest[0]), command


def test_the_main_pages_show_commands() -> None:
    shown = {command[0] for command, _ in commands_of("README.md")}
    assert shown == set(PROGRAMS)
    assert sum(is_complete for _, is_complete in commands_of("docs/tutorial.md")) >= 5


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), flags=re.M))
    named = set(re.findall(r"`make ([a-z-]+)`", read(page)))
    for _, block in FENCE.findall(read(page)):
        named |= set(re.findall(r"^make ([a-z-]+)", block, flags=re.M))
    assert named <= targets


def python_blocks() -> list[tuple[str, str]]:
    return [(page, block) for page in PAGES for kind, block in FENCE.findall(read(page)) if kind == "python"]


@pytest.mark.parametrize(("page", "block"), python_blocks())
def test_python_blocks_import_names_that_exist(page: str, block: str) -> None:
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{page}: from {node.module} import {alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
