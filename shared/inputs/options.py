"""The options that select a command's input and how it is read."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from shared.cli.config import CommandConfig
from shared.glue import Task, get_task

SEPARATOR = ","
"""The default of --label-separator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputOptions:
    """Which files to read and how.

    input: files, folders or globs.
    task: the GLUE task whose layout the files have, if any.
    text_column, label_column, id_column: columns by name or 0-based index.
    multi_label, label_separator: where several labels per row are, see `LabelSets`.
    missing_labels: whether a row without a label is quarantined, or kept with a null label.
    delimiter, quoting, escape, encoding, header: format of TSV and CSV files, see `TableFormat`.
    max_characters: a row with a longer text is quarantined.
    limit: read only this many rows.
    shard_rows: rows per group that is checked for changes since the first pass.
    """

    input: tuple[str, ...]
    task: Task | None = None
    text_column: tuple[str, ...] = ()
    label_column: str | None = None
    multi_label: tuple[str, ...] = ()
    label_separator: str = SEPARATOR
    missing_labels: Literal["quarantine", "keep"] = "quarantine"
    id_column: str | None = None
    delimiter: str = "auto"
    quoting: Literal["auto", "csv", "none"] = "auto"
    escape: Literal["auto", "backslash", "none"] = "auto"
    encoding: str = "auto"
    header: Literal["auto", "yes", "no"] = "auto"
    max_characters: int = 1_000_000
    limit: int | None = None
    shard_rows: int = 512


def from_config(config: CommandConfig, **changes: Any) -> InputOptions:
    """The input options among a command's options; `changes` override them. Raises UsageError for an unknown task."""
    names = {field.name for field in fields(InputOptions)} & type(config).model_fields.keys()
    values = {name: getattr(config, name) for name in names}
    if isinstance(name := values.get("task"), str):
        values["task"] = get_task(name)
    return InputOptions(**values | changes)
