"""The columns of the input: which are the texts, the label and the source id, and which are copied along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from shared.errors import InputError, UsageError
from shared.glue import Task
from shared.inputs.headers import Header
from shared.inputs.options import InputOptions
from shared.inputs.records import file_kind

_RESERVED = {"source_id", "n", "text_a", "text_b", "label", "replaced", "base_a", "base_b", "sites_a", "sites_b"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Roles of the input's columns, by index. `rest_fields`: output fields of the columns that have no role."""

    names: tuple[str, ...]
    texts: tuple[int, ...]
    label: int | None
    source_id: int | None
    rest: tuple[int, ...]
    rest_fields: tuple[pa.Field, ...]


def find_columns(header: Header, options: InputOptions, first_path: str) -> Columns:
    """Assign the roles that the options or the task give. Raises InputError, UsageError naming flag and column."""
    names, task = header.names, options.task
    texts = tuple(_index(name, names, "--text-column") for name in options.text_column)
    label = _index(options.label_column, names, "--label-column") if options.label_column is not None else None
    if task is not None and not texts:
        _check_kind(first_path, task)
        texts, found = task.find_columns(first_path, names)
        label = found if label is None else label
    source_id = _index(options.id_column, names, "--id-column") if options.id_column is not None else None
    for flag, indices in (("--text-column", texts[1:]), ("--label-column", (label,)), ("--id-column", (source_id,))):
        if set(indices) & set(texts[:1]):
            raise UsageError(f"{flag}: column {names[texts[0]]} is already the first --text-column")
    rest = tuple(index for index in range(len(names)) if index not in {*texts, label, source_id})
    return Columns(
        names=names,
        texts=texts,
        label=label,
        source_id=source_id,
        rest=rest,
        rest_fields=tuple(_rest_field(names[index], header.type_of(index)) for index in rest),
    )


def _rest_field(name: str, kind: pa.DataType | None) -> pa.Field:
    return pa.field(f"{name}_input" if name in _RESERVED else name, kind or pa.string())


def _index(name: str, names: Sequence[str], flag: str) -> int:
    if name in names:
        return names.index(name)
    if name.isdigit() and int(name) < len(names):
        return int(name)
    raise InputError(f"{flag} {name}: the input has the columns {', '.join(names)} (0 to {len(names) - 1})")


def _check_kind(path: str, task: Task) -> None:
    if file_kind(path) != "tsv":
        raise UsageError(f"{path}: --task {task.name} only knows the columns of GLUE's TSV files; add --text-column")
