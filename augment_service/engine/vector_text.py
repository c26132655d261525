"""Word vectors as text: a word and its numbers on each line, with or without a header.

A word may contain spaces (GloVe 840B has `. . .`), so a line is parsed from its end: the last `width` fields are the
numbers.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shared.errors import ModelError

MAX_BAD_SHARE = 0.01
_BLOCK_LINES, _FIRST_LINES = 4096, 64
_CHUNK = 1 << 20
_MARK = b"\xef\xbb\xbf"
_MAX_LINE = 1 << 20
"""Limit of bytes per line; a longer line means that the file is not text vectors."""

Floats = NDArray[np.float32]


class Readable(Protocol):
    """A binary stream."""

    def read(self, size: int = ..., /) -> bytes:
        """At most `size` bytes."""
        ...


@dataclass(frozen=True, slots=True)
class WordVectors:
    """The contents of a file. matrix: (words, width). fingerprint: sha256 hex of the content used.

    problem: what was skipped, and why; empty if nothing was.
    """

    words: list[str]
    matrix: Floats
    fingerprint: str
    problem: str


@dataclass(slots=True)
class _Bad:
    """Malformed lines: their number, and the first one."""

    count: int = 0
    first: str = ""

    def add(self, number: int, line: bytes, expected: str) -> None:
        self.count += 1
        shown = line[:40].decode("utf-8", "backslashreplace").rstrip()
        self.first = self.first or f"line {number}: expected {expected}; got {shown!r}"


@dataclass(slots=True)
class _Reader:
    width: int
    words: list[str] = field(default_factory=list)
    blocks: list[Floats] = field(default_factory=list)
    bad: _Bad = field(default_factory=_Bad)

    def add(self, lines: list[tuple[int, bytes]]) -> None:
        """Parse a block of lines: at once if all are well-formed, else line by line."""
        parts = [line.rsplit(b" ", self.width) for _, line in lines]
        if all(len(one) == self.width + 1 and one[0] for one in parts):
            try:
                words = [one[0].decode() for one in parts]
                rows = _numbers(b" ".join(one[1:]) for one in parts)
            except ValueError:
                pass
            else:
                if rows.shape == (len(lines), self.width) and np.isfinite(rows).all():
                    self.words += words
                    self.blocks.append(rows)
                    return
        for (number, line), one in zip(lines, parts, strict=True):
            self._add_one(number, line, one)

    def _add_one(self, number: int, line: bytes, parts: list[bytes]) -> None:
        expected = f"a word and {self.width} numbers, as in the other lines"
        try:
            word = parts[0].decode()
            row = _numbers([b" ".join(parts[1:])])
        except ValueError as error:
            self.bad.add(number, line, "UTF-8" if isinstance(error, UnicodeDecodeError) else expected)
            return
        if not word or row.shape != (1, self.width) or not np.isfinite(row).all():
            self.bad.add(number, line, expected)
            return
        self.words.append(word)
        self.blocks.append(row)


def read_text(path: str, file: Readable, limit: int | None) -> WordVectors:
    """Words and vectors of a text file; `limit`: read only the first ones. Raises ModelError naming a line."""
    digest = hashlib.sha256(str(limit).encode())
    lines = _lines(path, file)
    first = list(islice(lines, _FIRST_LINES))
    if first and first[0][1].startswith(_MARK):
        first[0] = (1, first[0][1].removeprefix(_MARK))
    announced = None
    if first and len(parts := first[0][1].split()) == 2 and all(part.isdigit() for part in parts):
        announced = int(parts[0])
        digest.update(first.pop(0)[1])
    reader = _Reader(_width(path, [line for _, line in first]))
    rest = chain(first, lines)
    while limit is None or len(reader.words) < limit:
        size = _BLOCK_LINES if limit is None else min(_BLOCK_LINES, limit - len(reader.words))
        block = list(islice(rest, size))
        if not block:
            break
        for _, line in block:
            digest.update(line)
        reader.add([(number, line.rstrip()) for number, line in block if line.strip()])
        _check(path, reader, is_complete=False)
    _check(path, reader, is_complete=True)
    problem = f"{reader.bad.count} lines skipped; the first: {reader.bad.first}" if reader.bad.count else ""
    if announced is not None and limit is None and announced > len(reader.words) + reader.bad.count:
        announcement = f"the header announces {announced} words, but the file contains {len(reader.words)}"
        problem = f"{problem}; {announcement}" if problem else announcement
    return WordVectors(reader.words, np.concatenate(reader.blocks), digest.hexdigest(), problem)


def _check(path: str, reader: _Reader, *, is_complete: bool) -> None:
    """Raises ModelError if too many lines are bad; before the end of the file only if that is already certain."""
    bad, good = reader.bad.count, len(reader.words)
    if bad > MAX_BAD_SHARE * (bad + good) and (is_complete or bad > max(good, _BLOCK_LINES)):
        share = f" ({bad} of {bad + good} lines cannot be read)" if bad > 1 else ""
        raise ModelError(f"--glove {path} {reader.bad.first}{share}")
    if is_complete and not good:
        raise ModelError(f"--glove {path} contains no vectors")


def _width(path: str, lines: list[bytes]) -> int:
    """Numbers per line: the most frequent count in the first lines."""
    widths = Counter(len(line.rstrip().split(b" ")) - 1 for line in lines if line.strip())
    if not widths:
        raise ModelError(f"--glove {path} contains no vectors")
    width = widths.most_common(1)[0][0]
    if width < 2:
        number = next(number for number, line in enumerate(lines, start=1) if line.strip())
        shown = lines[number - 1][:40].decode("utf-8", "backslashreplace").rstrip()
        raise ModelError(f"--glove {path} line {number}: expected a word and its numbers; got {shown!r}")
    return width


def _numbers(rows: Iterable[bytes]) -> Floats:
    """(rows, width) float32. Raises ValueError."""
    texts = [row.decode("ascii") for row in rows]
    if not all(map(str.strip, texts)):
        raise ValueError("a line has no numbers")
    return np.loadtxt(texts, dtype=np.float32, delimiter=" ", comments=None, ndmin=2)


def _lines(path: str, file: Readable) -> Iterator[tuple[int, bytes]]:
    """Numbered lines with their ends. Only line feeds end a line: the Twitter vectors have U+0085 as a word."""
    number, rest = 0, b""
    while chunk := file.read(_CHUNK):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            number += 1
            yield number, line + b"\n"
        if len(rest) > _MAX_LINE:
            raise ModelError(
                f"--glove {path} line {number + 1} is longer than 1 MB; this is not a text file of word vectors"
            )
    if rest:
        yield number + 1, rest
