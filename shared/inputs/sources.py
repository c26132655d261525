"""Input files -> rows in order, or quarantine records, in two streaming passes that never hold a whole file in memory.

The first pass counts rows, hashes the files and determines the label's type; the second streams the rows. The position
of a row decides its source id and its shard.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from shared.errors import InputError
from shared.inputs.columns import Columns, find_columns
from shared.inputs.digests import RowDigests
from shared.inputs.headers import Header, read_header
from shared.inputs.labels import SEVERAL, common_type, convert_label, kind_of_label
from shared.inputs.options import InputOptions
from shared.inputs.read_files import read_records
from shared.inputs.read_row import read_row
from shared.inputs.rows import QuarantinedRow, SourceRow
from shared.inputs.table_files import SUFFIXES, file_kind
from shared.storage.input_files import InputFile, expand

logger = logging.getLogger(__name__)

MAX_LABELS = 10_000
"""Limit of distinct labels that are remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An input after the first pass: its files, columns and label type, and how many rows it has.

    digests: of each group of `options.shard_rows` rows. labels: all distinct labels, as in the file; None if there are
    more than MAX_LABELS.
    """

    options: InputOptions
    header: Header
    files: tuple[InputFile, ...]
    columns: Columns
    label_type: pa.DataType
    num_rows: int
    digests: tuple[bytes, ...] = ()
    labels: frozenset[Any] | None = None

    @property
    def rest_fields(self) -> tuple[pa.Field, ...]:
        """Output fields of the pass-through columns."""
        return self.columns.rest_fields

    def rows(self) -> Iterator[SourceRow | QuarantinedRow]:
        """Second pass: one item per row, in order, up to --limit. Raises InputError, StoreError.

        Iteration continues past a group only if its rows are the same as in the first pass.
        """
        digests, expected = RowDigests(self.options.shard_rows), iter(self.digests)
        count = 0
        for item in _rows_as_written(self.header, self.columns, self.options):
            count += 1
            if count > self.num_rows:
                break
            if isinstance(item, SourceRow) and item.label is not None:
                label = convert_label(item.label, self.label_type)
                yield SourceRow(item.source_id, item.text_a, item.text_b, label, item.rest)
            else:
                yield item
            if (digest := digests.add(item)) is not None and digest != next(expected):
                raise self._changed(f"rows {count - self.options.shard_rows} to {count - 1} are different now")
        if count != self.num_rows:
            raise self._changed(f"it had {self.num_rows} rows and now has {'more' if count > self.num_rows else count}")
        if digests.finish() != next(expected, None):
            raise self._changed("its last rows are different now")

    def _changed(self, how: str) -> InputError:
        names = ", ".join(file.path for file in self.files)
        return InputError(
            f"{names} changed while it was being read: {how}. No changed rows were written; restore the input, or use "
            "another --output for the changed one"
        )


def open_source(options: InputOptions) -> Source:
    """First pass. Raises InputError, UsageError naming file and column; StoreError."""
    paths = expand(options.input, SUFFIXES)
    for path in paths:
        file_kind(path)
    header = read_header(paths, options)
    columns = find_columns(header, options, header.layouts[0].path)
    for name in (columns.names[index] for index in columns.rest):
        if name in header.mixed:
            logger.warning("mixed_json_column", extra={"fields": {"column": name, "copied_as": "JSON text"}})
    files = tuple(InputFile.of(path) for path in paths)
    label_type, num_rows, digests, labels = _survey(header, columns, options)
    several = pa.types.is_list(label_type)
    if columns.label is not None and header.is_typed and not columns.label_names and not several:
        label_type = _typed_label(header.types[columns.label], label_type)
    read_as = "; ".join(dict.fromkeys(map(str, header.layouts)))
    logger.info("input", extra={"fields": {"files": len(files), "rows": num_rows, "read_as": read_as}})
    return Source(
        options=options,
        header=header,
        files=files,
        columns=columns,
        label_type=label_type,
        num_rows=num_rows,
        digests=digests,
        labels=labels,
    )


def _typed_label(declared: pa.DataType, found: pa.DataType) -> pa.DataType:
    """The label type of a typed column: floats that are all whole numbers become integers."""
    if pa.types.is_dictionary(declared):
        declared = declared.value_type
    if pa.types.is_floating(declared):
        return found if pa.types.is_int64(found) else declared
    return pa.string() if pa.types.is_large_string(declared) or pa.types.is_string_view(declared) else declared


def _survey(
    header: Header, columns: Columns, options: InputOptions
) -> tuple[pa.DataType, int, tuple[bytes, ...], frozenset[Any] | None]:
    """The common type of all labels, the number of rows, their digests, and the distinct labels if there are few.

    Raises InputError if no row is usable.
    """
    groups, digests = RowDigests(options.shard_rows), list[bytes]()
    num_rows = num_usable = 0
    first_problem: QuarantinedRow | None = None
    label_kinds: set[str | None] = set()
    labels: set[Any] = set()
    is_score = options.task is not None and options.task.labels is None
    seen: set[int] = set()
    for item in _rows_as_written(header, columns, options):
        num_rows += 1
        if (digest := groups.add(item)) is not None:
            digests.append(digest)
        if isinstance(item, QuarantinedRow):
            first_problem = first_problem or item
            continue
        num_usable += 1
        label_kinds.add(kind_of_label(item.label, is_score))
        if len(labels) <= MAX_LABELS:
            labels.update(item.label if isinstance(item.label, list) else (item.label,))
        if columns.source_id is not None:
            if item.source_id in seen:
                raise InputError(f"--id-column {options.id_column}: the id {item.source_id} occurs twice")
            seen.add(item.source_id)
    names = ", ".join(layout.path for layout in header.layouts)
    if not num_rows:
        raise InputError(f"{names}: no rows")
    if not num_usable and first_problem:
        problem = f"{first_problem.where}: {first_problem.reason}"
        raise InputError(f"{names}: none of {num_rows} rows can be used; {problem}")
    if (digest := groups.finish()) is not None:
        digests.append(digest)
    if SEVERAL in label_kinds and label_kinds - {None} != {SEVERAL}:
        assert columns.label is not None
        raise InputError(
            f"{names}: column {columns.names[columns.label]} has lists of labels in some rows and single labels in "
            "others; write a list in every row, even for a single label"
        )
    return common_type(label_kinds), num_rows, tuple(digests), frozenset(labels) if len(labels) <= MAX_LABELS else None


def _rows_as_written(header: Header, columns: Columns, options: InputOptions) -> Iterator[SourceRow | QuarantinedRow]:
    """One item per row, in order, up to --limit; labels as in the file."""
    records = read_records(header, {columns.names[index] for index in columns.rest})
    for position, record in enumerate(records):
        if options.limit is not None and position >= options.limit:
            return
        yield read_row(position, record, columns, options)
