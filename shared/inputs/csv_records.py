"""CSV with quotes -> records, where one misplaced quote costs one line.

A quoted cell may contain commas and line breaks. A quote that is never closed, or that is followed by more text, would
swallow the rows after it: only that line is rejected, and reading continues with the next one.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MAX_RECORD_CHARACTERS = 10_000_000
"""A longer record is taken for one with an unclosed quote."""


@dataclass(frozen=True, slots=True)
class CsvRecord:
    """The record that starts at line `number` (1-based): its `cells`, or None and the reason; `raw` is its text."""

    number: int
    cells: tuple[str, ...] | None
    reason: str
    raw: str


class _TooLongError(Exception):
    pass


def read_csv(lines: Iterable[str]) -> Iterator[CsvRecord]:
    """The records in `lines`, which keep their line ends; empty lines are skipped."""
    csv.field_size_limit(2**31 - 1)
    source = iter(lines)
    again: deque[str] = deque()
    taken: list[str] = []
    number = 1
    reader = csv.reader(_take(source, again, taken), strict=True)
    while True:
        taken.clear()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except (csv.Error, _TooLongError) as error:
            reason = "a quote that is never closed, or that is followed by text"
            yield CsvRecord(number, None, f"{reason} ({error})" if str(error) else reason, taken[0].rstrip("\r\n"))
            number += 1
            again.extendleft(reversed(taken[1:]))
            reader = csv.reader(_take(source, again, taken), strict=True)
            continue
        if cells:
            yield CsvRecord(number, tuple(cells), "", "".join(taken).rstrip("\r\n"))
        number += len(taken)


def _take(source: Iterator[str], again: deque[str], taken: list[str]) -> Iterator[str]:
    """Lines to read again, then new ones; each is appended to `taken`."""
    size = 0
    while (line := again.popleft() if again else next(source, None)) is not None:
        size = len(line) + (size if taken else 0)
        taken.append(line)
        if len(taken) > 1 and size > MAX_RECORD_CHARACTERS:
            raise _TooLongError
        yield line
