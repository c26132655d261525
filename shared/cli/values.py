"""A configuration from its sources: flags over environment variables over a YAML file over defaults."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import Any, TypeVar

from shared.cli.config import CommandConfig, flag_of
from shared.cli.environment import from_environment, variable_of
from shared.cli.options import takes_several, value_type
from shared.cli.yaml_file import read_yaml
from shared.errors import UsageError

Config = TypeVar("Config", bound=CommandConfig)


def from_namespace(model: type[CommandConfig], namespace: argparse.Namespace) -> CommandConfig:
    """Build the configuration: flags over the environment over the `--config` file over defaults. Raises UsageError."""
    flags = vars(namespace).copy()
    path = flags.pop("config", None)
    if not model.environment_prefix:
        return model.build((_from_file(model, path) if path else {}) | flags)
    path = path or os.environ.get(variable_of(model, "config"))
    return over_environment(model, flags, _from_file(model, path) if path else {})


def over_environment(model: type[Config], chosen: Mapping[str, Any], defaults: Mapping[str, Any]) -> Config:
    """Build the configuration: `chosen` over the environment over `defaults`. Raises UsageError."""
    given = {name: value for name, value in from_environment(model, os.environ).items() if name not in chosen}
    try:
        return model.build({**defaults, **given, **chosen})
    except UsageError as error:
        name = next((one for one in given if str(error).startswith(f"{flag_of(one)}:")), None)
        if name is None:
            raise
        raise UsageError(variable_of(model, name) + str(error).removeprefix(flag_of(name))) from error


def _from_file(model: type[CommandConfig], path: str) -> dict[str, Any]:
    """The file's options. A single value is accepted as a list, and any scalar as text, exactly as written."""
    values, texts = read_yaml(path)
    for name, value in values.items():
        field = model.model_fields.get(name)
        if field is None or value is None:
            continue
        if value_type(field) is str:
            value = _as_written(value, texts.get(name))
        values[name] = [value] if takes_several(field) and not isinstance(value, list) else value
    return values


def _as_written(value: Any, text: Any) -> Any:
    if isinstance(value, list) and isinstance(text, list):
        return [_as_written(*pair) for pair in zip(value, text, strict=True)]
    return text if isinstance(text, str) and value is not None else value
