"""The dialect of a delimited text file: delimiter, quoting, escapes, encoding and header, given or detected.

Settings that are not given are detected from the first `SAMPLE_BYTES` of each file, never from the meaning of texts.
The result is logged, because a wrong guess changes the rows.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from shared.errors import InputError, UsageError
from shared.glue import Task
from shared.inputs.csv_records import CsvRecord, read_csv
from shared.inputs.labels import is_number
from shared.inputs.options import InputOptions
from shared.inputs.table_files import check_is_table, file_kind, open_table

SAMPLE_BYTES = 1 << 20
LONGEST_HEADER = 1 << 24
_SEPARATOR_LINE = re.compile(r'("?)sep=([^\w\s"\\]|\t)\2*\1\r?(?:\n|(?<=\r))', re.IGNORECASE)
_DRAWN_LINE = re.compile(
    r"\|?\s*:?-{2,}:?\s*(?:[|+]\s*:?-{2,}:?\s*)+\|?|\|\s*:?-{2,}:?\s*\|"
    r"|\+(?:[-=]{2,}\+)+|[┌├╭╞][─━═┬┼╪┐┤]+"
)
"""A line, without the space around it, of a table drawn for a reader: below the header in Markdown, psql and mysql, or
a frame's. Patterns for that space would take quadratic time on a long line."""
_NAMES = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar"}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """delimiter: one character. escape: backslash or none. newline: the line end, as in `open()`.

    padded: blanks follow each delimiter and are not part of a cell. quote: the quote character. names_delimiter: the
    first line is `sep=;`, as Excel reads and writes it, not a row.
    """

    delimiter: str
    quoting: bool
    escape: str | None
    encoding: str
    header: bool
    newline: Literal["\n", "\r"]
    padded: bool = False
    quote: str = '"'
    names_delimiter: bool = False

    def __str__(self) -> str:
        quoted = "quoted cells" if self.quote == '"' else "cells in single quotes"
        quoting = quoted if self.quoting else "no quoting"
        escape = ", backslash escapes" if self.escape else ""
        encoding = "UTF-8" if self.encoding.startswith("utf-8") else self.encoding
        padded = " and blanks" if self.padded else ""
        first = ", first line sep=" if self.names_delimiter else ""
        delimiter = _NAMES.get(self.delimiter, repr(self.delimiter))
        return f"{delimiter}{padded}-separated, {quoting}{escape}, {encoding}{first}"


def dialect_of(path: str, options: InputOptions) -> Dialect:
    """The dialect of a TSV or CSV file. Raises InputError for a file that is not text, UsageError for an option."""
    task = options.task
    with open_table(path) as file:
        sample = file.read(SAMPLE_BYTES)
        if not sample.strip():
            raise InputError(f"{path} is empty")
        if len(sample) == SAMPLE_BYTES and (end := sample.rfind(b"\n")) > 0:
            sample = sample[: end + 1]
        elif len(sample) == SAMPLE_BYTES and b"\n" not in file.read(LONGEST_HEADER):
            raise InputError(f"{path}: the first line is longer than {LONGEST_HEADER:,} bytes; is this file a table?")
    encoding = text_encoding(path, sample, options.encoding)
    text = sample.decode(encoding, "replace")
    if _is_json(text):
        raise InputError(f"{path} contains JSON; rename it to end in .jsonl")
    if not text.partition("\n")[0].strip():
        raise InputError(f"{path}: the file or its first line is empty")
    newline = _newline(path, text)
    if any(_DRAWN_LINE.fullmatch(line.strip()) for line in text.split(newline, 3)[:3]):
        raise InputError(f"{path} is a table drawn with lines, as in Markdown or a terminal; save it as CSV")
    named = _SEPARATOR_LINE.match(text)
    if named is not None:
        text = text[named.end() :]
        if not text.strip():
            raise InputError(f"{path} has nothing after its first line, which only sets the delimiter")
    is_glue = task is not None and not options.text_column
    quoting = options.quoting == "csv" or (options.quoting == "auto" and not (is_glue and file_kind(path) == "tsv"))
    default = "\t" if file_kind(path) == "tsv" else ","
    padded_mark = _padded_mark(text, newline) if quoting else ""
    if padded_mark:
        head, _, rest = text.partition(newline)
        text = head.replace(f"{padded_mark} ", padded_mark) + newline + rest
    delimiter = _delimiter(options.delimiter) or (named[2] if named else None)
    delimiter = delimiter or (default if is_glue else _find_delimiter(text, default, newline, options))
    escape = "\\" if options.escape == "backslash" else None
    quote = "'" if quoting and _has_single_quotes(text, delimiter, newline) else '"'
    if quoting and options.quoting == "auto" and options.escape == "auto":
        plain, escaped = (_count_bad(text, delimiter, one, newline, quote) for one in (None, "\\"))
        escape = "\\" if escaped < plain and f"\\{quote}" in text else None
        # If quoting explains no cell, unmatched quotes are part of the text.
        quoting = quote == "'" or not (
            file_kind(path) == "tsv" and min(plain, escaped) and not _has_quoted_cells(text, delimiter, newline)
        )
        escape = escape if quoting else None
    rows = _sample_rows(text, delimiter, escape if quoting else None, newline, quoting, quote)
    return Dialect(
        delimiter=delimiter,
        quoting=quoting,
        escape=escape,
        encoding=encoding,
        header=_has_header(rows, options, task),
        newline=newline,
        padded=quoting and delimiter == padded_mark,
        quote=quote,
        names_delimiter=named is not None,
    )


def _padded_mark(text: str, newline: str) -> str:
    """The comma or semicolon that is always followed by a blank, in the header and in each row; empty if neither is."""
    head, _, rest = text.partition(newline)
    mark = max(",;", key=head.count)
    lines = [line for line in rest.split(newline)[:1000] if line.strip()]
    if not head.count(mark) or head.count(mark) != head.count(f"{mark} ") or not lines:
        return ""
    if not all(f"{mark} " in line for line in lines):
        return ""
    rows = list(read_csv([f"{head}\n", *(f"{line}\n" for line in lines)], delimiter=mark, padded=True))
    fitting = sum(row.cells is not None and len(row.cells) == len(rows[0].cells or ()) for row in rows)
    return mark if fitting >= 0.9 * len(rows) else ""


def text_encoding(path: str, sample: bytes, wanted: str) -> str:
    """The codec of a text file: from --encoding, its byte order mark, or UTF-8. sample: its first START_BYTES or more.

    Raises UsageError, InputError.
    """
    check_is_table(path, sample)
    if wanted != "auto":
        try:
            name = codecs.lookup(wanted).name
            "".encode(name)
        except (LookupError, TypeError) as error:
            raise UsageError(f"--encoding {wanted}: unknown encoding; examples are utf-8, cp1252, gb18030") from error
        return "utf-8-sig" if name == "utf-8" else name
    for mark, encoding in _MARKS:
        if sample.startswith(mark):
            return encoding
    if b"\x00" in sample.partition(b"\n")[0]:
        raise InputError(f"{path} is UTF-16 or binary; set its encoding (--encoding utf-16-le), or save it as UTF-8")
    return "utf-8-sig"


def _is_json(text: str) -> bool:
    """Whether a text begins with a JSON object that is a whole line or the first element of an array."""
    body = text.lstrip("\ufeff \t\r\n")
    begins_array = body.startswith("[")
    body = body.removeprefix("[").lstrip()
    if not body.startswith("{"):
        return False
    try:
        found, end = json.JSONDecoder().raw_decode(body)
    except (ValueError, RecursionError):
        return False
    return bool(found) and (begins_array or body[end:].partition("\n")[0].strip() in ("", ","))


def _newline(path: str, text: str) -> Literal["\n", "\r"]:
    if "\n" in text or "\r" not in text.rstrip("\r"):
        return "\n"
    if file_kind(path) == "tsv":
        raise InputError(f"{path}: lines end in carriage returns; convert them to line feeds (tr '\\r' '\\n')")
    return "\r"


def _delimiter(wanted: str) -> str | None:
    if wanted == "auto":
        return None
    found = {name: character for character, name in _NAMES.items()}.get(wanted, wanted)
    found = "\t" if found == "\\t" else found
    if len(found) != 1 or found in '"\\\r\n':
        raise UsageError(f"--delimiter {wanted}: must be one character, or tab, comma, semicolon or bar")
    return found


def _sample_rows(
    text: str, delimiter: str, escape: str | None, newline: str, quoting: bool = True, quote: str = '"'
) -> list[CsvRecord]:
    lines = [f"{line}\r" for line in text.removesuffix("\r").split("\r")] if newline == "\r" else _lines(text)
    if not quoting:
        return [CsvRecord(0, tuple(line.rstrip("\r\n").split(delimiter)), "", line) for line in lines[:1000]]
    return list(islice(read_csv(lines, delimiter=delimiter, escape=escape, quote=quote), 1000))


def _lines(text: str) -> list[str]:
    return [f"{line}\n" for line in text.removesuffix("\n").split("\n")]


def _count_bad(text: str, delimiter: str, escape: str | None, newline: str, quote: str) -> int:
    if quote not in text:
        return 0
    return sum(one.cells is None for one in _sample_rows(text, delimiter, escape, newline, quote=quote))


def _has_single_quotes(text: str, delimiter: str, newline: str) -> bool:
    """Whether the quote character is the single quote.

    With it, every row has as many cells as the header; without it, some row does not, or all cells of a column or of
    the header are in single quotes.
    """
    if text.count("'") < 2:
        return False
    for escape in (None, "\\"):
        rows = [one.cells for one in _sample_rows(text, delimiter, escape, newline, quote="'")]
        # The last row of a large sample may be truncated.
        rows = rows[:-1] if len(rows) > 20 else rows
        if len(rows) > 1 and rows[0] and all(row is not None and len(row) == len(rows[0]) for row in rows):
            plain = _sample_rows(text, delimiter, None, newline)
            if any(len(one.cells or ()) != len(rows[0]) for one in plain):
                return True
            # As written, so that single quotes inside double quotes are part of the cell.
            written = [one.raw.rstrip("\r\n").split(delimiter) for one in plain]
            if any(len(row) != len(rows[0]) for row in written):
                return False
            return any(all(map(_is_quoted, column)) for column in (written[0], *zip(*written[1:], strict=True)))
    return False


def _is_quoted(cell: str) -> bool:
    return len(cell) > 1 and cell[0] == cell[-1] == "'"


def _has_quoted_cells(text: str, delimiter: str, newline: str) -> bool:
    """Whether some quoted cell needs its quotes, or the header is quoted."""
    rows = [one for one in _sample_rows(text, delimiter, None, newline) if one.cells]
    if rows and rows[0].raw.startswith('"'):
        return True
    explained = {delimiter, "\n", '"'}
    return any(
        list(one.cells or ()) != one.raw.split(delimiter) and any(explained & set(cell) for cell in one.cells or ())
        for one in rows
    )


def _find_delimiter(text: str, default: str, newline: str, options: InputOptions) -> str:
    """The delimiter with which the header contains the columns requested by name.

    Else the format's own delimiter if the header has it; else the one with which nearly all rows have the header's
    width.
    """
    asked = {*options.text_column, options.label_column, options.id_column} - {None}
    best, share_of_best = default, 0.0
    quote = "'" if text.startswith("'") else '"'
    is_default = False
    for delimiter in (default, *(one for one in _NAMES if one != default)):
        rows = [one.cells for one in _sample_rows(text, delimiter, None, newline, quote=quote)]
        if not rows or rows[0] is None or len(rows[0]) < 2:
            continue
        if asked and asked <= set(rows[0]):
            return delimiter
        share = sum(row is not None and len(row) == len(rows[0]) for row in rows) / len(rows)
        is_default = is_default or (delimiter == default and share >= 0.5)
        if not is_default and share > share_of_best and (delimiter == default or share >= 0.9):
            best, share_of_best = delimiter, share
    return best


def _has_header(rows: Sequence[CsvRecord], options: InputOptions, task: Task | None) -> bool:
    if options.header != "auto":
        return options.header == "yes"
    first = rows[0].cells if rows else None
    if first is None:
        return True
    if task is not None and not options.text_column:
        return task.is_header(first)
    asked = [*options.text_column, *(one for one in (options.label_column, options.id_column) if one is not None)]
    if not asked or not all(one.isdigit() for one in asked):
        return True
    return not _looks_like_data(first, [one.cells for one in rows[1:] if one.cells and len(one.cells) == len(first)])


def _looks_like_data(first: Sequence[str], others: Sequence[Sequence[str]]) -> bool:
    """Whether the first row looks like the rest: numbers in columns of numbers, or a value that recurs."""
    numbered = [cell for cell in first if cell]
    if not others or numbered == [str(index) for index in range(len(numbered))]:
        return False
    others = [row for row in others if tuple(row) != tuple(first)]
    for index, cell in enumerate(first):
        column = [row[index] for row in others]
        if is_number(cell) and column and sum(map(is_number, column)) >= 0.9 * len(column):
            return True
        if cell.strip() and Counter(column)[cell]:
            return True
    return False
