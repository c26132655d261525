"""The columns of an input: the union over its files, by name, with a type that holds the values of all of them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import pyarrow as pa

from shared.errors import InputError
from shared.inputs.arrow_records import arrow_batches, class_names
from shared.inputs.dialect import Dialect, dialect_of, text_encoding
from shared.inputs.json_records import json_records, json_type, json_types
from shared.inputs.options import InputOptions
from shared.inputs.records import text_records
from shared.inputs.table_files import file_kind, open_table
from shared.storage.foreign_files import START_BYTES

logger = logging.getLogger(__name__)

WIDTH_ROWS = 1000
"""Rows whose number of cells is compared with the header's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How one file is read. names: its columns, in file order. schema: Parquet and Arrow only. encoding: JSON only."""

    path: str
    kind: str
    names: tuple[str, ...]
    dialect: Dialect | None = None
    schema: pa.Schema | None = None
    encoding: str = "utf-8"
    json_kinds: dict[str, set[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.dialect is not None:
            return (
                f"{self.dialect}, {'header ' if self.dialect.header else 'no header, columns '}{','.join(self.names)}"
            )
        return f"{'JSON' if self.kind == 'jsonl' else self.kind}, columns {','.join(self.names)}"

    def columns(self) -> str:
        """The file's columns, with types if it has them."""
        if self.schema is None:
            return ", ".join(self.names)
        return ", ".join(f"{one.name} ({one.type})" for one in self.schema)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Columns of all files together. is_typed: every file is Parquet or Arrow. layouts: of the files with rows.

    mixed: JSON columns whose values have no common type; they are copied as JSON text.
    """

    names: tuple[str, ...]
    types: tuple[pa.DataType, ...]
    is_typed: bool
    layouts: tuple[Layout, ...]
    mixed: frozenset[str] = frozenset()

    def require(self, names: Iterable[str]) -> None:
        """Raises InputError naming the first file that lacks one of these columns."""
        wanted = set(names)
        first = next((one for one in self.layouts if wanted <= set(one.names)), self.layouts[0])
        for layout in self.layouts:
            if layout.names and not wanted <= set(layout.names):
                raise InputError(
                    f"{layout.path} lacks a required column: it has {layout.columns()}; {first.path} has "
                    f"{first.columns()}"
                )

    def class_names(self, column: str) -> tuple[str, ...]:
        """The class names of a ClassLabel column; empty for other columns. Raises InputError if files differ."""
        found = {one.path: class_names(one.schema, column) for one in self.layouts if one.schema is not None}
        if len(set(found.values())) > 1:
            raise InputError(f"column {column}: the class names differ between the files; process the files separately")
        return next(iter(found.values()), ()) if self.is_typed else ()


def read_header(paths: Sequence[str], options: InputOptions) -> Header:
    """The columns of all files with rows. Raises InputError if types differ, a file is unreadable, or all are empty."""
    found = [(path, _layout_of(path, options)) for path in paths]
    layouts = [layout for _, layout in found if layout is not None]
    if not layouts:
        raise InputError(
            f"{', '.join(paths[:3])}: no rows; {'the file is' if len(paths) == 1 else 'all files are'} empty"
        )
    if not any(layout.names for layout in layouts):
        raise InputError(f"{layouts[0].path}: no line contains a JSON object{_first_problem(layouts[0])}")
    for path, layout in found:
        if layout is None:
            logger.info("empty_file_passed_over", extra={"fields": {"file": path}})
    names = tuple(dict.fromkeys(name for layout in layouts for name in layout.names))
    for layout in layouts:
        for name in layout.names:
            if not name.isascii() and not name.encode("utf-8", "ignore").decode() == name:
                raise InputError(f"{layout.path}: the column name {name!a} contains a lone surrogate")
    kinds = _json_kinds(layouts)
    types = _types(layouts, kinds)
    return Header(
        names=names,
        types=tuple(types[name] for name in names),
        is_typed=all(layout.schema is not None for layout in layouts),
        layouts=tuple(layouts),
        mixed=frozenset(
            name
            for name, found in kinds.items()
            if pa.types.is_string(json_type(found)) and not found - {"null"} <= {"text"}
        ),
    )


def _first_problem(layout: Layout) -> str:
    first = next(json_records(layout.path, (), layout.encoding), None)
    return f"; {first.place} {first.number}: {first.reason}" if first is not None else ""


def unique(name: str, taken: Iterable[str]) -> str:
    """The name, or name_2, name_3, ... if it is taken."""
    others = set(taken)
    if name not in others:
        return name
    number = 2
    while f"{name}_{number}" in others:
        number += 1
    return f"{name}_{number}"


def _json_kinds(layouts: Sequence[Layout]) -> dict[str, set[str]]:
    """Kinds of the values of each JSON column, over all files."""
    kinds: dict[str, set[str]] = {}
    for layout in layouts:
        for name, found in layout.json_kinds.items():
            kinds.setdefault(name, set()).update(found)
    return kinds


def _types(layouts: Sequence[Layout], kinds: Mapping[str, set[str]]) -> dict[str, pa.DataType]:
    schemas = [
        layout.schema or pa.schema([(name, json_type(kinds.get(name, {"text"}))) for name in layout.names])
        for layout in layouts
    ]
    try:
        merged = _merged(schemas, layouts, lambda kind: kind)
    except InputError:
        merged = _merged(schemas, layouts, _plain)
    return {one.name: one.type for one in merged}


def _merged(
    schemas: Sequence[pa.Schema], layouts: Sequence[Layout], simplify: Callable[[pa.DataType], pa.DataType]
) -> pa.Schema:
    """For each column, a type that can hold the values of all files. Raises InputError."""
    merged = pa.schema([])
    for schema, layout in zip(schemas, layouts, strict=True):
        schema = pa.schema([pa.field(one.name, simplify(one.type)) for one in schema])
        try:
            merged = pa.unify_schemas([merged, schema], promote_options="permissive")
        except pa.ArrowException as error:
            first = layouts[0]
            raise InputError(
                f"{layout.path}: column types do not match: it has {layout.columns()}; {first.path} has "
                f"{first.columns()}"
            ) from error
    return merged


def _plain(kind: pa.DataType) -> pa.DataType:
    """The plain type of the values, without encodings such as dictionaries and views."""
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _plain(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.string()
    return pa.binary() if pa.types.is_binary_view(kind) else kind


def _layout_of(path: str, options: InputOptions) -> Layout | None:
    """How a file is read; None for one without rows. Raises InputError."""
    kind = file_kind(path)
    if kind in ("parquet", "arrow"):
        return _typed_layout(path, kind)
    if _is_empty(path):
        return None
    if kind == "jsonl":
        with open_table(path) as file:
            encoding = text_encoding(path, file.read(START_BYTES), options.encoding)
        kinds = json_types(path, encoding)
        if not kinds and next(json_records(path, (), encoding), None) is None:
            return None
        return Layout(path=path, kind=kind, names=tuple(kinds), json_kinds=kinds, encoding=encoding)
    dialect = dialect_of(path, options)
    names = _text_names(path, dialect)
    _check_widths(path, dialect, len(names))
    return Layout(path=path, kind=kind, names=names, dialect=dialect)


def _check_widths(path: str, dialect: Dialect, width: int) -> None:
    """Raises InputError if nearly all rows after the first share a width that is not the first row's `width`."""
    records = islice(text_records(path, replace(dialect, header=False), None), 1, WIDTH_ROWS)
    widths = [len(record.cells) for record in records if record.cells is not None]
    if len(widths) < 2:
        return
    usual, count = Counter(widths).most_common(1)[0]
    if usual != width and count >= 0.9 * len(widths):
        raise InputError(
            f"{path}: the first line has {width} column{'s' if width > 1 else ''}, but most others have {usual}. "
            "Remove any lines above the header, name every column in it, and quote texts that contain the delimiter"
        )


def _typed_layout(path: str, kind: str) -> Layout | None:
    for batch in arrow_batches(path, kind):
        names = batch.schema.names
        if len(set(names)) != len(names):
            raise InputError(f"{path}: two columns have the same name ({', '.join(names)})")
        if batch.num_rows:
            return Layout(path=path, kind=kind, names=tuple(names), schema=batch.schema)
    return None


def _is_empty(path: str) -> bool:
    with open_table(path) as file:
        return not file.read(1)


def _text_names(path: str, dialect: Dialect) -> tuple[str, ...]:
    first = next(text_records(path, replace(dialect, header=False), None), None)
    if first is None or first.cells is None:
        raise InputError(f"{path} line 1: {first.reason if first else 'the header is missing'}")
    if not dialect.header:
        return tuple(f"column_{index}" for index in range(len(first.cells)))
    names: list[str] = []
    for index, name in enumerate(first.cells):
        is_double = list(first.cells).count(name) > 1
        names.append(unique(f"{name}_{index}" if is_double else name, [*names, *first.cells] if is_double else names))
    return tuple(names)
