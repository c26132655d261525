"""Options of a command: groups and defaults in `--help`, and values from a YAML file."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

import augment_service.cli
import trainer.cli
from shared.cli.command_line import Command, _load
from shared.cli.config import CommandConfig, flag_of, identity, runtime
from shared.cli.options import add_arguments, option_groups, range_text
from shared.cli.values import from_namespace
from shared.errors import UsageError

COMMANDS = [
    pytest.param(program, command, id=f"{program}-{command.name}")
    for program, commands in (("augment_service", augment_service.cli.COMMANDS), ("trainer", trainer.cli.COMMANDS))
    for command in commands
]


class Models(CommandConfig):
    """Models."""

    group: ClassVar[str] = "Models"
    model: str = identity("embedded", "Model to use.")
    lr: float = identity(0.1, "Learning rate.", gt=0)


class Everything(Models):
    """Options of every kind."""

    group: ClassVar[str] = "Everything"
    lr: float = identity(0.5, "Learning rate.", gt=0)
    files: tuple[str, ...] = identity(..., "Files to read.", min_length=1)
    columns: tuple[str, ...] = identity((), "Columns.")
    sizes: tuple[int, ...] = identity((1, 32), "Sizes.")
    label: str | None = identity(None, "Label column.")
    kind: Literal["a", "b"] = identity("a", "Kind.")
    workers: int = runtime(0, "Workers; 100% of them.", ge=0, le=8)
    seed: int = identity(0, "Seed.", ge=0, lt=2**63)
    name: str = runtime("", "Name.")
    threads: int | None = runtime(None, "Threads (default: all cores).", ge=1)
    quiet: bool = runtime(False, "Say nothing.")
    resume: bool = runtime(True, "Resume.")


def parser_of(model: type[CommandConfig]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="program", add_help=False)
    add_arguments(parser, model)
    return parser


def build(text: str, folder: Path, *flags: str) -> Any:
    path = folder / "options.yaml"
    path.write_text(text, encoding="utf-8")
    return from_namespace(Everything, parser_of(Everything).parse_args(["--config", str(path), *flags]))


def test_help_lists_required_options_first_then_a_group_per_class_and_common_options_last() -> None:
    help_text = parser_of(Everything).format_help()
    headings = re.findall(r"^(\w[\w ]*):$", help_text, re.MULTILINE)
    assert headings == ["Required", "Everything", "Models", "Common options"]
    assert help_text.startswith("usage: program --files TEXT [TEXT ...] [options]\n")
    # A subclass that changes a default leaves the option in the group of the class that introduced it.
    assert help_text.index("--lr") > help_text.index("Models:")


def test_help_states_every_default_and_range() -> None:
    help_text = " ".join(parser_of(Everything).format_help().split())
    for expected in (
        "Columns. (default: not set)",
        "Sizes. (default: 1 32)",
        "Label column. (default: not set)",
        "Kind. (default: a)",
        "Workers; 100% of them. (default: 0; 0 to 8)",
        "Seed. (default: 0; 0 to 2^63-1)",
        "Name. (default: empty)",
        "Threads (default: all cores). (1 or more)",
        "Say nothing. (default: off)",
        "Resume. (default: on)",
        "Learning rate. (default: 0.5; above 0)",
    ):
        assert expected in help_text


@pytest.mark.parametrize(("program", "command"), COMMANDS)
def test_every_option_of_every_command_is_in_its_help_once_with_its_default(program: str, command: Command) -> None:
    model: type[CommandConfig] = _load(command.config)
    grouped = [name for group in option_groups(model) for name in group.fields]
    assert sorted(grouped) == sorted(model.model_fields)
    text = " ".join(parser_of(model).format_help().split())
    for name, field in model.model_fields.items():
        description = " ".join((field.description or "").split())
        stated = field.is_required() or re.search(r"\(default", description + text.split(description, 1)[-1][:12])
        assert stated, f"{program} {command.name} {flag_of(name)} does not state its default"


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ({"ge": 0, "lt": 1}, "0 or more, below 1"),
        ({"gt": 0, "le": 1}, "above 0, at most 1"),
        ({"ge": 0, "le": 1.5}, "0 to 1.5"),
        ({}, ""),
    ],
)
def test_ranges_are_short(bounds: dict[str, float], text: str) -> None:
    class One(CommandConfig):
        share: float = identity(0.5, "A share.", **bounds)

    assert range_text(One.model_fields["share"]) == text


def test_a_file_may_give_one_value_for_a_list_and_a_number_for_text(tmp_path: Path) -> None:
    config = build("files: t.csv\nlabel: 1\ncolumns: [0, 1.10, no]\nsizes: 4\nname: 2024-01-02\n", tmp_path)
    assert config.files == ("t.csv",)
    assert config.label == "1"
    assert config.columns == ("0", "1.10", "no")
    assert config.sizes == (4,)
    assert config.name == "2024-01-02"


def test_null_in_a_file_is_not_text(tmp_path: Path) -> None:
    assert build("files: [a]\nlabel: null\n", tmp_path).label is None
    with pytest.raises(UsageError, match="--name: got None"):
        build("files: [a]\nname: null\n", tmp_path)


def test_merge_keys_and_dashes_in_a_file(tmp_path: Path) -> None:
    config = build("files: [a]\n<<: {name: 7, log-level: error, json: true}\n", tmp_path)
    assert (config.log_level, config.as_json, config.name) == ("error", True, "7")


def test_numbers_stay_strict_on_the_way_from_a_file(tmp_path: Path) -> None:
    for text, message in (
        ("workers: many", "--workers: got 'many'"),
        ("workers: 9", "--workers"),
        ("label: {a: 1}", "--label"),
        ("label: [1]", "--label"),
        ("- a", "must contain `option: value` lines"),
        ("files: [", "is not valid YAML"),
    ):
        with pytest.raises(UsageError, match=re.escape(message)):
            build(text if text.startswith(("-", "files")) else f"files: a\n{text}", tmp_path)


def test_flags_take_precedence_over_the_file(tmp_path: Path) -> None:
    config = build("files: [a]\nworkers: 3\nresume: false\n", tmp_path, "--workers", "4", "--files", "b", "c")
    assert (config.workers, config.files, config.resume) == (4, ("b", "c"), False)
