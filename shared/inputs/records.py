"""Files of each kind -> records in order: the cells as in the file, or why a record cannot be read."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from shared.errors import InputError
from shared.inputs.csv_records import CsvRecord, read_csv
from shared.inputs.dialect import Dialect
from shared.inputs.table_files import file_kind, open_table

SHOWN_RAW = 2000
"""Characters of a record that are kept when it is quarantined."""


class Record(NamedTuple):
    """A row as read: its cells, or why it could not be read. raw: its text, bytes, or None to show the cells."""

    path: str
    place: str
    number: int
    cells: Sequence[Any] | None
    reason: str
    raw: str | bytes | None

    @property
    def where(self) -> str:
        """The file, and the line or row in it."""
        return f"{self.path} {self.place} {self.number}"

    def shown(self) -> str:
        """The start of the record as text, with invalid UTF-8 as \\xNN."""
        raw = str(self.cells) if self.raw is None else self.raw
        raw = raw.encode("utf-8", "surrogateescape") if isinstance(raw, str) else raw
        return raw[:SHOWN_RAW].decode("utf-8", "backslashreplace").rstrip("\r\n")


def text_records(path: str, dialect: Dialect, width: int | None) -> Iterator[Record]:
    """The rows of a TSV or CSV file, without its header; all have `width` cells, if given. Raises InputError."""
    keep_empty = file_kind(path) == "tsv"
    with open_table(path) as binary:
        text = io.TextIOWrapper(binary, encoding=dialect.encoding, errors="surrogateescape", newline=dialect.newline)
        rows = _unquoted(text, dialect.delimiter, keep_empty)
        if dialect.quoting:
            rows = read_csv(
                text,
                delimiter=dialect.delimiter,
                escape=dialect.escape,
                keep_empty=keep_empty,
                padded=dialect.padded,
                quote=dialect.quote,
            )
        is_header = dialect.header
        try:
            for number, cells, reason, raw in rows:
                if number == 1 and dialect.names_delimiter:
                    continue
                if is_header:
                    is_header = False
                    continue
                if cells is not None and (width is None or len(cells) == width) and raw.isascii():
                    yield Record(path, "line", number, cells, "", raw)
                elif not raw.isascii() and (problem := _undecodable(raw, dialect.encoding)):
                    yield Record(path, "line", number, None, problem, raw)
                elif cells is not None and width is not None and len(cells) != width:
                    yield Record(path, "line", number, None, f"{len(cells)} columns, {width} expected", raw)
                else:
                    yield Record(path, "line", number, cells, reason, raw)
        except UnicodeError as error:
            raise InputError(f"{path}: not valid {dialect.encoding}: {error}") from error


def _unquoted(lines: Iterable[str], delimiter: str, keep_empty: bool) -> Iterator[CsvRecord]:
    for number, line in enumerate(lines, start=1):
        content = line.removesuffix("\n").removesuffix("\r")
        if content:
            yield CsvRecord(number, tuple(content.split(delimiter)), "", content)
        elif keep_empty:
            yield CsvRecord(number, None, "empty line", "")


def _undecodable(raw: str, encoding: str) -> str:
    if not any("\udc80" <= letter <= "\udcff" for letter in raw):
        return ""
    if not encoding.startswith("utf-8"):
        return f"not {encoding}"
    try:
        raw.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeDecodeError as error:
        return f"not UTF-8: {error.reason} at byte {error.start}; set another encoding with --encoding, such as cp1252"
    return "not UTF-8"
