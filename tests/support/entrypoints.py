"""Finds our command lines in manifests and scripts, and builds each command's configuration from them.

A command line with an option that does not exist fails.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from shared.cli.config import CommandConfig
from shared.cli.options import add_arguments
from shared.cli.values import from_namespace

PROGRAMS = ("augment_service", "trainer")
_ENDS = {"&&", "||", ";", "|", "&"}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise AssertionError(message)


def commands_in(shell_line: str) -> list[list[str]]:
    """The arguments after `python -m` of each of our commands in one shell line."""
    lexer = shlex.shlex(shell_line, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split = True
    commands: list[list[str]] = []
    words = list(lexer)
    for place, word in enumerate(words):
        if word in PROGRAMS and words[max(place - 2, 0) : place] == ["python", "-m"]:
            end = next((i for i in range(place, len(words)) if words[i] in _ENDS), len(words))
            commands.append(words[place:end])
    return commands


def build_config(command: Sequence[str]) -> CommandConfig:
    """The configuration of [program, command, options…], as the program itself would build it.

    Raises AssertionError for an unknown command or option.
    """
    program, name, *options = command
    commands = {one.name: one for one in importlib.import_module(f"{program}.cli").COMMANDS}
    assert name in commands, f"{program} has no command {name}"
    module, model_name = commands[name].config.split(":")
    model: type[CommandConfig] = getattr(importlib.import_module(module), model_name)
    parser = _Parser(allow_abbrev=False)
    add_arguments(parser, model)
    return from_namespace(model, parser.parse_args(options))


def run_recorded(
    script: Path, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], fakes: Mapping[str, str]
) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
    """Run a shell script with `fakes` (program name -> shell body) first on the path, and record their calls.

    Returns the finished process and the calls, each [program, arguments…].
    """
    tools, log = folder / "tools", folder / "calls.jsonl"
    tools.mkdir(parents=True, exist_ok=True)
    log.write_text("", encoding="utf-8")
    record = (
        f'/usr/bin/env python3 -c \'import json,sys; print(json.dumps(sys.argv[1:]))\' "$(basename "$0")" "$@" >> {log}'
    )
    for name, body in fakes.items():
        tool = tools / name
        tool.write_text(f"#!/bin/bash\nPATH=/usr/bin:/bin\n{record}\n{body}\n", encoding="utf-8")
        tool.chmod(0o755)
    finished = subprocess.run(
        ["bash", str(script), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(folder)} | dict(environment),
    )
    return finished, [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
