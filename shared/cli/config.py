"""Configuration of a command: one frozen model, filled from flags over a YAML file over defaults.

Fields are of two kinds. `identity` fields decide the bytes that come out: they are fingerprinted in the manifest and
must match when a run is resumed. `runtime` fields (number of actors, address, log format) may change between two runs
of one job. Flags, `--help`, YAML keys and the reference page all come from the same field.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from shared.errors import UsageError


def identity(default: Any, description: str, **options: Any) -> Any:
    """A field that decides the output; `options` go to pydantic (ge, le, ...), `positional`/`metavar` to the parser."""
    return _field("identity", default, description, options)


def runtime(default: Any, description: str, **options: Any) -> Any:
    """A field that decides only how the work is done, never its result."""
    return _field("runtime", default, description, options)


def _field(kind: str, default: Any, description: str, options: dict[str, Any]) -> Any:
    extra: dict[str, Any] = {"kind": kind}
    for name in ("positional", "metavar"):
        if name in options:
            extra[name] = options.pop(name)
    return Field(default, description=description, json_schema_extra=extra, **options)


class CommandConfig(BaseModel):
    """Base of every command's configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())

    debug: bool = runtime(False, "On failure also print the traceback.")
    as_json: bool = runtime(False, "Print the final summary as one JSON object on stdout.")
    log_format: typing.Literal["text", "json"] = runtime("text", "Log lines as `event key=value` text or as JSON.")
    log_level: typing.Literal["debug", "info", "warning", "error"] = runtime("info", "Least severe level to log.")

    def identity(self) -> dict[str, Any]:
        """The fields that decide the output, JSON-ready."""
        dumped = self.model_dump(mode="json")
        return {name: dumped[name] for name, field in type(self).model_fields.items() if kind_of(field) == "identity"}

    def fingerprint(self) -> str:
        """sha256 hex of the `identity` fields."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()

    @classmethod
    def build(cls, values: Mapping[str, Any]) -> Self:
        """Validate `values`. Raises UsageError naming the first bad option and what it may be."""
        try:
            return cls(**dict(values))
        except ValidationError as error:
            raise UsageError(_first_problem(cls, error)) from error


def kind_of(field: FieldInfo) -> str:
    """`identity` or `runtime`; a field made without the two helpers above is `identity`, the safe side."""
    return str(_extra(field).get("kind", "identity"))


def flag_of(name: str) -> str:
    """Command-line flag of a field: `n_a` is `--n-a`; `as_json` is `--json`, since pydantic keeps `json` for itself."""
    return "--json" if name == "as_json" else "--" + name.replace("_", "-")


def add_arguments(parser: argparse.ArgumentParser, model: type[CommandConfig]) -> None:
    """One argument per field of `model`; defaults stay out of the namespace, so that a file can stand between."""
    parser.add_argument("--config", metavar="FILE.yaml", help="YAML file with any of these options (flags win over it)")
    for name, field in model.model_fields.items():
        extra, annotation = _extra(field), _plain_type(field.annotation)
        options: dict[str, Any] = {"help": _help_text(field), "default": argparse.SUPPRESS}
        if extra.get("positional"):
            parser.add_argument(name, metavar=extra.get("metavar", name.upper()), help=field.description)
            continue
        if annotation is bool:
            action = argparse.BooleanOptionalAction if field.default is True else "store_true"
            parser.add_argument(flag_of(name), dest=name, action=action, **options)
            continue
        if typing.get_origin(annotation) in (list, tuple):
            options |= {"nargs": "+", "action": "extend"}
            annotation = typing.get_args(annotation)[0]
        if typing.get_origin(annotation) is typing.Literal:
            options["metavar"] = "|".join(str(value) for value in typing.get_args(annotation))
        parser.add_argument(
            flag_of(name), dest=name, **({"metavar": extra.get("metavar", _metavar(annotation))} | options)
        )


def from_namespace(model: type[CommandConfig], namespace: argparse.Namespace) -> CommandConfig:
    """Build the configuration: flags over the `--config` file over defaults. Raises UsageError."""
    values = vars(namespace).copy()
    path = values.pop("config", None)
    return model.build((read_yaml(path) if path else {}) | values)


def read_yaml(path: str) -> dict[str, Any]:
    """The options in a YAML file, keys as field names. Raises UsageError when it cannot be read or is no mapping."""
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            loaded = yaml.safe_load(file)
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} is not valid YAML: {error}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise UsageError(f"--config {path} must hold `option: value` lines, not a {type(loaded).__name__}")
    return {{"json": "as_json"}.get(str(key), str(key)).replace("-", "_"): value for key, value in loaded.items()}


def _extra(field: FieldInfo) -> dict[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def _plain_type(annotation: Any) -> Any:
    """`X | None` without the None."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(annotation) if member is not type(None)]
        return members[0]
    return annotation


def _metavar(annotation: Any) -> str:
    return {int: "N", float: "X"}.get(annotation, "TEXT")


def _help_text(field: FieldInfo) -> str:
    text = (field.description or "").replace("%", "%%")
    if field.is_required():
        return text + " (required)"
    if field.default in (None, False, ()) or field.default_factory is not None:
        return text
    default = {True: "on"}.get(field.default, field.default) if isinstance(field.default, bool) else field.default
    return f"{text} (default {default})"


def _first_problem(model: type[CommandConfig], error: ValidationError) -> str:
    # A misspelt option is the likeliest reason for a missing one, so it comes first.
    problem = min(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    name = str(problem["loc"][0]) if problem["loc"] else ""
    if problem["type"] == "extra_forbidden":
        return f"unknown option '{name}'; see --help for the list"
    if not name:
        return str(problem["msg"]).removeprefix("Value error, ")
    field = model.model_fields.get(name)
    label = name if field is not None and _extra(field).get("positional") else flag_of(name)
    if problem["type"] == "missing":
        return f"{label} is required"
    message = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    return (
        f"{label}: got {str(problem['input'])[:80]!r}; should be {message}"
        if message[:1].islower() or "'" in message[:2]
        else f"{label}: {message}"
    )
