"""Roles of the input's columns: texts, label, source id, and pass-through columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from shared.errors import InputError, UsageError
from shared.glue import Task
from shared.inputs.arrow_cells import check_can_be_copied
from shared.inputs.headers import Header, unique
from shared.inputs.options import SEPARATOR, InputOptions
from shared.inputs.table_files import file_kind

RESERVED = {"source_id", "n", "text_a", "text_b", "label", "replaced", "base_a", "base_b", "sites_a", "sites_b"}
"""The job's own columns of a shard: an input column with such a name is copied as `NAME_input`."""

_HUB_TEXTS = {"MNLI": ("premise", "hypothesis"), "MRPC": ("sentence1", "sentence2")}
"""Text columns of the hub's `glue` data set whose names differ from those in the TSV files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Roles of the input's columns, by index. `rest_fields`: output fields of the columns that have no role.

    label_names: the names of an integer label's classes, if the files have them. label_set: columns of 0 and 1, one per
    label, instead of `label`. has_lists: --multi-label names the one column of `label`. not_texts: the label and
    `rest`.
    """

    names: tuple[str, ...]
    texts: tuple[int, ...]
    label: int | None
    source_id: int | None
    rest: tuple[int, ...]
    rest_fields: tuple[pa.Field, ...]
    label_names: tuple[str, ...] = ()
    label_set: tuple[int, ...] = ()
    has_lists: bool = False
    not_texts: tuple[int, ...] = ()

    @property
    def has_label(self) -> bool:
        """Whether rows have one or more labels."""
        return self.label is not None or bool(self.label_set)

    @property
    def label_set_names(self) -> tuple[str, ...]:
        """The labels that have one column each."""
        return tuple(self.names[index] for index in self.label_set)


def find_columns(header: Header, options: InputOptions, first_path: str) -> Columns:
    """Assign roles from the options or the task. Raises InputError, UsageError naming flag and column."""
    names, task = header.names, options.task
    texts = tuple(_index(name, header, "--text-column") for name in options.text_column)
    label = _index(options.label_column, header, "--label-column") if options.label_column is not None else None
    if task is not None and not texts:
        texts, found = _columns_of_task(header, first_path, task)
        label = found if label is None else label
    source_id = _index(options.id_column, header, "--id-column") if options.id_column is not None else None
    label_set = tuple(_index(name, header, "--multi-label") for name in options.multi_label)
    if label_set and (label is not None or task is not None):
        raise UsageError(
            "--multi-label already names the label columns: remove "
            + ("--label-column" if task is None else f"--task, because {task.name} has one label per row")
        )
    if options.label_separator != SEPARATOR and not label_set:
        raise UsageError(
            "--label-separator applies only to the column of --multi-label: name the label column with --multi-label"
            + (f" {options.label_column}" if options.label_column is not None else "")
        )
    _check_one_role(label_set, (*texts[1:], source_id), names)
    has_lists = len(label_set) == 1
    if has_lists:
        label, label_set = label_set[0], ()
    flags = {"--text-column": texts[1:], "--label-column": (label,), "--id-column": (source_id,)}
    for flag, indices in (flags | {"--multi-label": label_set}).items():
        if set(indices) & set(texts[:1]):
            raise UsageError(f"{flag}: column {names[texts[0]]} is already the first --text-column")
    roles = [index for index in (*texts, label, *label_set, source_id) if index is not None]
    header.require(names[index] for index in roles)
    rest = tuple(index for index in range(len(names)) if index not in roles)
    return Columns(
        names=names,
        texts=texts,
        label=label,
        source_id=source_id,
        rest=rest,
        rest_fields=_rest_fields(header, rest),
        label_set=label_set,
        has_lists=has_lists,
        not_texts=rest if label is None else (label, *rest),
        label_names=() if label is None else _label_names(header, names[label], task),
    )


def _check_one_role(label_set: Sequence[int], others: Sequence[int | None], names: Sequence[str]) -> None:
    """Raises UsageError for a column of --multi-label that is named twice, or has another role."""
    for place, index in enumerate(label_set):
        if index in label_set[:place] or index in others:
            raise UsageError(f"--multi-label: column {names[index]} is used twice; name each column once")


def _rest_fields(header: Header, rest: Sequence[int]) -> tuple[pa.Field, ...]:
    """Output fields of the columns without a role, with unique names. Raises InputError."""
    taken = [*RESERVED, *(header.names[index] for index in rest)]
    fields = []
    for index in rest:
        name = header.names[index]
        if name in RESERVED:
            name = unique(f"{name}_input", taken)
            taken.append(name)
        field = pa.field(name, header.types[index])
        check_can_be_copied(field)
        fields.append(field)
    return tuple(fields)


def _label_names(header: Header, label: str, task: Task | None) -> tuple[str, ...]:
    """The names of a ClassLabel column, unless the task's own labels are numbers."""
    found = header.class_names(label)
    if task is None or task.labels is None:
        return found if task is None else ()
    return found if set(found) <= set(task.labels) else ()


def _index(name: str, header: Header, flag: str) -> int:
    names = header.names
    if name in names:
        return names.index(name)
    if name.isdigit() and int(name) < len(names):
        return int(name)
    more = f" and {len(header.layouts) - 1} more" if len(header.layouts) > 1 else ""
    # Leading and trailing blanks of a name are invisible without quotes.
    shown = ", ".join(one if one == one.strip() and one else repr(one) for one in names)
    raise InputError(
        f"{header.layouts[0].path}{more}: {flag} {name}: no such column; the input has the columns {shown} "
        f"(index 0 to {len(names) - 1})"
    )


def _columns_of_task(header: Header, path: str, task: Task) -> tuple[tuple[int, ...], int | None]:
    """Indices of a task's texts and label, in GLUE's own TSV files or in tables with the hub's column names."""
    names, wanted = header.names, _HUB_TEXTS.get(task.name, task.text_names)
    if file_kind(path) == "tsv" or not set(wanted) <= set(names):
        if file_kind(path) != "tsv":
            raise UsageError(
                f"{path}: --task {task.name} needs GLUE's TSV files or the columns {', '.join(wanted)}; to use other "
                "columns, add --text-column"
            )
        return task.find_columns(path, names)
    return tuple(names.index(name) for name in wanted), names.index("label") if "label" in names else None
