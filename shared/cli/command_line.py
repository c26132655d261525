"""Shared by both command lines: parse, validate, call one function, map its outcome to an exit code.

Exit codes: 0 done, 1 failed with a one-line message, 2 wrong usage, 130 interrupted. Results go to stdout, everything
else to stderr. A command's code is imported only when the command runs, so that `--help` stays instant.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from shared.cli.config import CommandConfig
from shared.cli.options import add_arguments
from shared.cli.signals import interruptible
from shared.cli.values import from_namespace
from shared.errors import ExpectedError, UsageError

INTERRUPTED_EXIT_CODE = 130


@dataclass(frozen=True, slots=True)
class CommandResult:
    """Outcome of a command: `summary` for `--json`, `text` otherwise, and the exit code."""

    summary: Mapping[str, Any]
    text: str = ""
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand. `config` and `run` are `module:name`, imported when the command is used.

    `run` takes the configuration and returns a CommandResult, or None when there is nothing to print.
    """

    name: str
    summary: str
    config: str
    run: str


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def main(program: str, description: str, commands: Sequence[Command], argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code. Errors become text only here."""
    debug = "--debug" in (argv if argv is not None else sys.argv)
    try:
        with interruptible():
            return _run(program, description, commands, list(argv if argv is not None else sys.argv[1:]))
    except ExpectedError as error:
        _report(program, error, debug)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{program}: interrupted; everything committed so far is kept", file=sys.stderr)
        return INTERRUPTED_EXIT_CODE
    except BrokenPipeError:
        # The reader of stdout has closed the pipe (`| head`). Not an error, but nothing more can be written there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ImportError as error:
        _report(program, error, debug, f"{error}; install the packages that this command needs: pip install '.[all]'")
        return 1
    except Exception as error:
        _report(
            program, error, debug, f"unexpected {type(error).__name__}: {error} (this is a bug; --debug shows where)"
        )
        return 1


def _run(program: str, description: str, commands: Sequence[Command], argv: list[str]) -> int:
    parser = _Parser(prog=program, description=description, allow_abbrev=False)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    wanted = next((word for word in argv if not word.startswith("-")), None)
    for command in commands:
        sub = subparsers.add_parser(
            command.name,
            help=command.summary,
            description=command.summary,
            allow_abbrev=False,
            add_help=False,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=110),
        )
        if command.name == wanted:
            add_arguments(sub, _load(command.config))
    namespace = parser.parse_args(argv)
    if namespace.command is None:
        parser.print_help(sys.stderr)
        return UsageError.exit_code
    command = next(command for command in commands if command.name == namespace.command)
    del namespace.command
    config: CommandConfig = from_namespace(_load(command.config), namespace)

    from shared.cli.logs import configure_logs

    configure_logs(config.log_format, config.log_level)
    result: CommandResult | None = _load(command.run)(config)
    if result is None:
        return 0
    if config.as_json:
        print(json.dumps(result.summary, ensure_ascii=False, default=str), flush=True)
    elif result.text:
        print(result.text, flush=True)
    return result.exit_code


def _load(path: str) -> Any:
    module, name = path.split(":")
    return getattr(importlib.import_module(module), name)


def _report(program: str, error: BaseException, debug: bool, message: str | None = None) -> None:
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    print(f"{program}: error: {' '.join((message or str(error)).split())}", file=sys.stderr, flush=True)
