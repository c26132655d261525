"""Options from a YAML file."""

from __future__ import annotations

from typing import Any

from shared.errors import UsageError


def read_yaml(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options in a YAML file by field name: once with parsed values, once with every scalar as its literal text.

    The latter is for options that take text: `1.10` or `no` would otherwise be parsed as 1.1 or False.
    Raises UsageError when the file cannot be read or does not contain a mapping.
    """
    import yaml

    class TextLoader(yaml.SafeLoader):
        """Resolves merge keys (`<<`) but leaves every other plain scalar as text."""

    TextLoader.yaml_implicit_resolvers = {"<": yaml.SafeLoader.yaml_implicit_resolvers["<"]}

    try:
        with open(path, encoding="utf-8") as file:
            content = file.read()
        values, texts = yaml.safe_load(content), yaml.load(content, Loader=TextLoader)
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} is not valid YAML: {error}") from error
    if values is None:
        return {}, {}
    if not isinstance(values, dict):
        raise UsageError(f"--config {path} must contain `option: value` lines, not a {type(values).__name__}")
    return _by_field_name(values), _by_field_name(texts)


def _by_field_name(options: dict[Any, Any]) -> dict[str, Any]:
    names = {"json": "as_json"}
    return {names.get(str(key), str(key)).replace("-", "_"): value for key, value in options.items()}
