"""The options of a configuration: grouped, described, and as arguments of a parser.

Required options come first in `--help`, then one group per class that declares them, then the options common to every
command. argparse itself requires no flags, because a YAML file may supply them: validation reports what is missing.
"""

from __future__ import annotations

import argparse
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from shared.cli.config import CommandConfig, extra_of, flag_of

REQUIRED = "Required"


@dataclass(frozen=True, slots=True)
class OptionGroup:
    """Options under one heading: field name -> field, in order of declaration."""

    title: str
    fields: Mapping[str, FieldInfo]


def option_groups(model: type[CommandConfig]) -> list[OptionGroup]:
    """Required options, then the classes from the command's own to its bases, then CommandConfig's."""
    required = {name: field for name, field in model.model_fields.items() if field.is_required()}
    groups = [OptionGroup(REQUIRED, required)]
    owners: list[type] = [one for one in model.__mro__ if issubclass(one, BaseModel) and one is not CommandConfig]
    for owner in [*owners, CommandConfig]:
        optional = {
            name: field
            for name, field in model.model_fields.items()
            if name not in required and _declaring_class(model, name) is owner
        }
        groups.append(OptionGroup(_title(owner), optional))
    return [group for group in groups if group.fields]


def _declaring_class(model: type[BaseModel], name: str) -> type:
    """The first class to declare a field: a subclass that only changes a default does not move the option."""
    return next(one for one in reversed(model.__mro__) if name in vars(one).get("__annotations__", {}))


def _title(owner: type) -> str:
    own = vars(owner).get("group") or (owner.__doc__ or owner.__name__).split("\n")[0]
    return str(own).rstrip(".")


def add_arguments(parser: argparse.ArgumentParser, model: type[CommandConfig]) -> None:
    """Add one argument per field of `model`. Defaults stay out of the namespace, so that a file can fill them in."""
    parser.usage = _usage(parser.prog, model)
    for group in option_groups(model):
        section = parser.add_argument_group(group.title)
        if group.title == CommandConfig.group:
            section.add_argument(
                "--config",
                metavar="FILE.yaml",
                help="YAML file with any of these options; flags take precedence over it (default: not set)",
            )
        for name, field in group.fields.items():
            _add_argument(section, name, field)
        if group.title == CommandConfig.group and not parser.add_help:
            section.add_argument("-h", "--help", action="help", help="Show this help and exit.")


def value_type(field: FieldInfo) -> Any:
    """Type of the field without `| None`; the element type if the field takes several values."""
    annotation = _without_none(field.annotation)
    return typing.get_args(annotation)[0] if takes_several(field) else annotation


def takes_several(field: FieldInfo) -> bool:
    """Whether the option takes a list of values."""
    return typing.get_origin(_without_none(field.annotation)) in (list, tuple)


def default_text(field: FieldInfo) -> str:
    """The default as the user would write it; empty for a required option or one whose description states it."""
    if field.is_required() or "(default" in (field.description or ""):
        return ""
    default = field.get_default(call_default_factory=True)
    if isinstance(default, bool):
        return "on" if default else "off"
    if default is None or default == ():
        return "not set"
    if default == "":
        return "empty"
    return " ".join(str(one) for one in default) if isinstance(default, list | tuple) else str(default)


def range_text(field: FieldInfo) -> str:
    """Bounds of a number, such as `1 to 100`, `1 or more`, `above 0`; empty if unbounded."""
    bounds = {
        name: getattr(one, name)
        for one in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if getattr(one, name, None) is not None
    }
    low = _number(bounds["ge"]) if "ge" in bounds else ""
    if "ge" in bounds and ("le" in bounds or (value_type(field) is int and "lt" in bounds)):
        return f"{low} to {_number(bounds['le'] if 'le' in bounds else bounds['lt'] - 1)}"
    parts = [f"{low} or more"] if low else []
    parts += [f"above {_number(bounds['gt'])}"] if "gt" in bounds else []
    parts += [f"below {_number(bounds['lt'])}"] if "lt" in bounds else []
    parts += [f"at most {_number(bounds['le'])}"] if "le" in bounds else []
    return ", ".join(parts)


def _number(value: float) -> str:
    return "2^63-1" if value == 2**63 - 1 else f"{value:g}" if isinstance(value, float) else str(value)


def _usage(program: str, model: type[CommandConfig]) -> str:
    """The required options, without brackets although argparse does not enforce them."""
    words = []
    for name, field in model.model_fields.items():
        if field.is_required():
            one = _metavar(name, field)
            several = f" [{one} ...]" if takes_several(field) else ""
            words.append(one if extra_of(field).get("positional") else f"{flag_of(name)} {one}{several}")
    return " ".join([program, *words, "[options]"])


def _add_argument(section: argparse._ArgumentGroup, name: str, field: FieldInfo) -> None:
    if extra_of(field).get("positional"):
        section.add_argument(name, metavar=_metavar(name, field), help=_help_text(field))
        return
    options: dict[str, Any] = {"dest": name, "help": _help_text(field), "default": argparse.SUPPRESS}
    if value_type(field) is bool:
        action: Any = argparse.BooleanOptionalAction if field.default is True else "store_true"
        section.add_argument(flag_of(name), action=action, **options)
        return
    if takes_several(field):
        options |= {"nargs": "+", "action": "extend"}
    section.add_argument(flag_of(name), metavar=_metavar(name, field), **options)


def _metavar(name: str, field: FieldInfo) -> str:
    if extra_of(field).get("positional"):
        return str(extra_of(field).get("metavar", name.upper()))
    annotation = value_type(field)
    if typing.get_origin(annotation) is typing.Literal:
        return "|".join(str(value) for value in typing.get_args(annotation))
    return str(extra_of(field).get("metavar") or {int: "N", float: "X"}.get(annotation, "TEXT"))


def _help_text(field: FieldInfo) -> str:
    default = default_text(field)
    notes = "; ".join(part for part in (f"default: {default}" if default else "", range_text(field)) if part)
    return f"{field.description or ''}{f' ({notes})' if notes else ''}".replace("%", "%%")


def _without_none(annotation: Any) -> Any:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next(one for one in typing.get_args(annotation) if one is not type(None))
    return annotation
