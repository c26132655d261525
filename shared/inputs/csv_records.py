"""CSV with quotes -> records. A misplaced quote costs only one line.

A quoted cell may contain delimiters and line breaks. A quote that is never closed, or whose closing quote is followed
by more text, would swallow the following rows: instead only that line is rejected, and parsing resumes with the next.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

MAX_RECORD_CHARACTERS = 10_000_000
"""A longer record is assumed to have an unclosed quote."""


_RETURN = "\udc0d"
"""A lone surrogate that no decoder produces."""


class CsvRecord(NamedTuple):
    """The record that starts at line `number` (1-based): its `cells`, or None and the reason; `raw` is its text."""

    number: int
    cells: tuple[str, ...] | None
    reason: str
    raw: str


class _TooLongError(Exception):
    pass


def read_csv(
    lines: Iterable[str],
    *,
    delimiter: str = ",",
    escape: str | None = None,
    keep_empty: bool = False,
    padded: bool = False,
    quote: str = '"',
) -> Iterator[CsvRecord]:
    """The records in `lines`, which keep their line ends. Empty lines are skipped, or are records without cells.

    padded: blanks after a delimiter are not part of the cell; an opening quote may follow them.
    """
    csv.field_size_limit(2**31 - 1)
    source = iter(lines)
    again: deque[str] = deque()
    taken: list[str] = []
    number = 1
    while True:
        line = again.popleft() if again else next(source, None)
        if line is None:
            return
        if quote not in line and (escape is None or escape not in line):
            content = line.rstrip("\r\n")
            if content:
                parts = content.split(delimiter)
                cells = tuple(part.lstrip(" ") for part in parts) if padded else tuple(parts)
                yield CsvRecord(number, cells, "", content)
            elif keep_empty:
                yield CsvRecord(number, None, "empty line", "")
            number += 1
            continue
        again.appendleft(line)
        taken.clear()
        taking = _take(source, again, taken)
        reader = csv.reader(
            taking, strict=True, delimiter=delimiter, escapechar=escape, skipinitialspace=padded, quotechar=quote
        )
        try:
            found = next(reader)
        except (csv.Error, _TooLongError, StopIteration) as error:
            reason = "a quote is never closed, or is followed by text"
            if escape is None and f"\\{quote}" in taken[0]:
                reason += "; if quotes are escaped with a backslash, use --escape backslash"
            detail = f" ({error})" if str(error) else ""
            yield CsvRecord(number, None, f"{reason}{detail}", taken[0].rstrip("\r\n"))
            number += 1
            again.extendleft(reversed(taken[1:]))
            continue
        cells = tuple(cell.replace(_RETURN, "\r") for cell in found)
        yield CsvRecord(number, cells, "", "".join(taken).rstrip("\r\n"))
        number += len(taken)


def _take(source: Iterator[str], again: deque[str], taken: list[str]) -> Iterator[str]:
    """Lines to reread, then new ones; each is appended to `taken`."""
    size = 0
    while (line := again.popleft() if again else next(source, None)) is not None:
        size = len(line) + (size if taken else 0)
        taken.append(line)
        if len(taken) > 1 and size > MAX_RECORD_CHARACTERS:
            raise _TooLongError
        yield _hide_returns(line)


def _hide_returns(line: str) -> str:
    """The line with its inner carriage returns replaced, which the csv module would treat as line ends."""
    body = line.removesuffix("\n").removesuffix("\r")
    return line if "\r" not in body else body.replace("\r", _RETURN) + line[len(body) :]
