"""Options of a command from environment variables: PREFIX_NAME for the option --name.

Kubernetes sets variables of the same form for every Service: one named `augment` yields AUGMENT_SERVICE_HOST and
AUGMENT_SERVICE_PORT. They describe the Service, so they are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from shared.cli.config import CommandConfig
from shared.cli.options import takes_several

_ONLY_FLAGS = ("debug", "as_json")
_LINK = re.compile(r"(tcp|udp|sctp)://")
_LINK_NAME = re.compile(r"(SERVICE_)?(HOST|PORT)(_.*)?|.*_PORT(_\d+)?_(TCP|UDP|SCTP).*")


def from_environment(model: type[CommandConfig], environment: Mapping[str, str]) -> dict[str, str | list[str]]:
    """Option -> value. Several values are separated by commas; an empty variable counts as not set."""
    found: dict[str, str | list[str]] = {}
    for name, field in model.model_fields.items():
        value = environment.get(variable_of(model, name), "").strip()
        if not value or name in _ONLY_FLAGS or _is_link(model, name, value, environment):
            continue
        found[name] = [one.strip() for one in value.split(",") if one.strip()] if takes_several(field) else value
    return found


def variable_of(model: type[CommandConfig], name: str) -> str:
    """The environment variable of an option."""
    return f"{model.environment_prefix}{name.upper()}"


def unknown_variables(
    model: type[CommandConfig], environment: Mapping[str, str], also_known: tuple[str, ...]
) -> list[str]:
    """Names with the prefix that match no option and are most likely misspelt. Values are never returned."""
    prefix = model.environment_prefix
    known = {variable_of(model, name) for name in model.model_fields if name not in _ONLY_FLAGS} | set(also_known)
    found = sorted(one for one in environment if one.startswith(prefix) and one not in known)
    return [one for one in found if not _LINK_NAME.fullmatch(one.removeprefix(prefix))]


def _is_link(model: type[CommandConfig], name: str, value: str, environment: Mapping[str, str]) -> bool:
    if name not in ("host", "port"):
        return False
    service = model.environment_prefix.removesuffix("SERVICE_")
    return bool(_LINK.match(value) or _LINK.match(environment.get(f"{service}PORT", "")))
