"""Configuration of a command: one frozen model, filled from flags over a YAML file over defaults.

There are two kinds of field. `identity` fields decide the bytes of the output: they are fingerprinted in the manifest
and must match when a run is resumed. `runtime` fields (number of actors, address, log format) may change between two
runs of one job. Flags, `--help`, YAML keys and the reference page are all derived from the same field.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from shared.errors import UsageError


def identity(default: Any, description: str, **options: Any) -> Any:
    """A field that decides the output; `options` go to pydantic (ge, le, ...), `positional`/`metavar` to the parser."""
    return _field("identity", default, description, options)


def runtime(default: Any, description: str, **options: Any) -> Any:
    """A field that affects only how the work is done, never its result."""
    return _field("runtime", default, description, options)


def _field(kind: str, default: Any, description: str, options: dict[str, Any]) -> Any:
    extra: dict[str, Any] = {"kind": kind}
    for name in ("positional", "metavar"):
        if name in options:
            extra[name] = options.pop(name)
    return Field(default, description=description, json_schema_extra=extra, **options)


class CommandConfig(BaseModel):
    """Base of every command's configuration. `group` is the heading of a class's options in `--help`."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())
    group: ClassVar[str] = "Common options"
    environment_prefix: ClassVar[str] = ""
    """If set, options are also read from environment variables with this prefix."""

    debug: bool = runtime(False, "Also print the traceback when the command fails.")
    as_json: bool = runtime(False, "Print the final summary as one JSON object on stdout.")
    log_format: Literal["text", "json"] = runtime("text", "Write log lines as `event key=value` text or as JSON.")
    log_level: Literal["debug", "info", "warning", "error"] = runtime("info", "Lowest severity to log.")

    def identity(self) -> dict[str, Any]:
        """The fields that decide the output, JSON-ready."""
        dumped = self.model_dump(mode="json")
        return {name: dumped[name] for name, field in type(self).model_fields.items() if kind_of(field) == "identity"}

    def fingerprint(self) -> str:
        """sha256 hex digest of the `identity` fields."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()

    @classmethod
    def build(cls, values: Mapping[str, Any]) -> Self:
        """Validate `values`. Raises UsageError that names the first invalid option and the values it accepts."""
        try:
            return cls(**dict(values))
        except ValidationError as error:
            raise UsageError(_first_problem(cls, error)) from error


def kind_of(field: FieldInfo) -> str:
    """`identity` or `runtime`. A field declared without either helper counts as `identity`, the safe choice."""
    return str(extra_of(field).get("kind", "identity"))


def flag_of(name: str) -> str:
    """Command-line flag of a field: `n_a` becomes `--n-a`. `as_json` is `--json`, because pydantic reserves `json`."""
    return "--json" if name == "as_json" else "--" + name.replace("_", "-")


def extra_of(field: FieldInfo) -> dict[str, Any]:
    """The field's settings for the parser: `kind`, `positional`, `metavar`."""
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def _first_problem(model: type[CommandConfig], error: ValidationError) -> str:
    # A misspelt option is the likeliest cause of a missing one, so report it first.
    problem = min(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    name = str(problem["loc"][0]) if problem["loc"] else ""
    if problem["type"] == "extra_forbidden":
        return f"unknown option '{name}'; see --help for the list"
    if not name:
        return str(problem["msg"]).removeprefix("Value error, ")
    field = model.model_fields.get(name)
    label = name if field is not None and extra_of(field).get("positional") else flag_of(name)
    if problem["type"] == "missing":
        return f"{label} is required"
    message = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    if not (message[:1].islower() or "'" in message[:2]):
        return f"{label}: {message}"
    value = problem["input"]
    shown = repr(value[:80]) if isinstance(value, str) else str(value)[:80]
    return f"{label}: got {shown}; should be {message}"
