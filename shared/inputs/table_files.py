"""Table files: kind detected by suffix, ignoring case; compression detected by content, not by name."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import tempfile
import zipfile
import zlib
from pathlib import PurePosixPath
from typing import IO, Any

import pyarrow as pa

from shared.errors import InputError
from shared.storage.foreign_files import START_BYTES, compression_of, what_it_is
from shared.storage.input_files import open_binary

KINDS = {
    **dict.fromkeys((".tsv", ".tab"), "tsv"),
    ".csv": "csv",
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "jsonl"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".arrow", ".arrows", ".feather", ".ipc"), "arrow"),
}
"""Suffix -> kind of file."""
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")
SUFFIXES = (*KINDS, *(f"{kind}{one}" for kind in KINDS for one in COMPRESSED), ".zip")
"""Suffixes of the files that are read from a folder."""
_ADVICE = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers"), " (save the sheet as CSV, in UTF-8)"),
    **dict.fromkeys((".txt", ".dat", ""), " (give it the suffix .csv or .tsv if it is a table)"),
}
_FAULTS = (
    *(OSError, EOFError, UnicodeError, NotImplementedError),
    *(lzma.LZMAError, zlib.error, zipfile.BadZipFile, pa.ArrowException),
)


def file_kind(path: str) -> str:
    """The kind of a file, by its suffix. Raises InputError for an unknown one."""
    name = PurePosixPath(path)
    if name.suffix.lower() in COMPRESSED:
        name = PurePosixPath(name.stem)
        if not KINDS.get(name.suffix.lower()) and path.lower().endswith(".zip"):
            name = PurePosixPath(_member(path))
    kind = KINDS.get(name.suffix.lower())
    if kind is None:
        advice = _ADVICE.get(name.suffix.lower(), "")
        raise InputError(f"{path}: unknown file type{advice}; known types are {', '.join((*KINDS, *COMPRESSED))}")
    return kind


def open_table(path: str) -> IO[bytes]:
    """The decompressed bytes of a table. Raises InputError, StoreError."""
    raw: Any = open_binary(path)
    suffix = _compression(path, raw)
    if not suffix:
        return raw  # type: ignore[no-any-return]
    member = _member(path) if suffix == ".zip" else ""
    try:
        inner = _decompressor(suffix, raw, member)
    except RuntimeError as error:
        raw.close()
        raise InputError(f"{path}: {error}; unpack it first") from error
    except _FAULTS as error:
        raw.close()
        raise _damaged(path, error) from error
    return io.BufferedReader(_Decompressed(path, inner, raw), 1 << 20)


def open_seekable(path: str) -> IO[bytes]:
    """As `open_table` but seekable, for formats with a footer: a compressed file is unpacked to a temporary one."""
    raw = open_binary(path)
    if not _compression(path, raw):
        return raw
    raw.close()
    unpacked = tempfile.TemporaryFile()  # noqa: SIM115
    with open_table(path) as file:
        while block := file.read(1 << 20):
            unpacked.write(block)
    unpacked.seek(0)
    return unpacked


def check_is_table(path: str, start: bytes) -> None:
    """Raises InputError if the content does not match the name. start: first decompressed bytes of the file."""
    if (kind := what_it_is(start[:START_BYTES])) is not None:
        raise InputError(f"{path} is {kind}")


def _compression(path: str, raw: Any) -> str:
    """The suffix of an open file's compression; empty if uncompressed. Raises InputError after closing the file."""
    named = PurePosixPath(path).suffix.lower()
    if named == ".zip":
        return named
    try:
        start = raw.peek(START_BYTES)
        found = compression_of(start)
        if found is None and named in COMPRESSED and start:
            check_is_table(path, start)
            # A truncated or damaged file is left to the decompressor, whose error is more informative.
            if not any(byte < 9 for byte in start[:START_BYTES]):
                raise InputError(f"{path} is not compressed; remove {named} from its name")
            return named
    except OSError as error:
        raw.close()
        raise InputError(f"{path}: {error.strerror or error}") from error
    except InputError:
        raw.close()
        raise
    return found or ""


def _decompressor(suffix: str, raw: Any, member: str) -> Any:
    if suffix == ".gz":
        return gzip.GzipFile(fileobj=raw)
    if suffix == ".bz2":
        return bz2.BZ2File(raw)
    if suffix == ".xz":
        return lzma.LZMAFile(raw)
    if suffix == ".zst":
        return pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")
    return zipfile.ZipFile(raw).open(member)


def _member(path: str) -> str:
    """The only table in a zip file. Raises InputError."""
    try:
        with open_binary(path) as raw, zipfile.ZipFile(raw) as archive:
            names = [name for name in archive.namelist() if PurePosixPath(name).suffix.lower() in KINDS]
    except _FAULTS as error:
        with open_binary(path) as raw:
            start = raw.read(START_BYTES)
        if not start.startswith(b"PK"):
            check_is_table(path, start)
        raise _damaged(path, error) from error
    names = [name for name in names if not any(part[:1] == "." or part == "__MACOSX" for part in name.split("/"))]
    if len(names) != 1:
        raise InputError(f"{path} contains {len(names)} tables; unpack it, and pass the ones to read")
    return names[0]


def open_as_utf8(path: str, encoding: str) -> IO[bytes]:
    """The bytes of a table transcoded to UTF-8. Raises InputError, StoreError, also while reading."""
    file = open_table(path)
    return file if encoding.startswith("utf-8") else io.BufferedReader(_Recoded(path, encoding, file), 1 << 20)


class _Recoded(io.RawIOBase):
    """A file transcoded to UTF-8. Raises InputError for bytes that are invalid in its encoding."""

    def __init__(self, path: str, encoding: str, file: IO[bytes]) -> None:
        super().__init__()
        self._path, self._encoding, self._file = path, encoding, file
        self._decode = codecs.getincrementaldecoder(encoding)().decode
        self._ready = b""

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer; 0 at the end."""
        while not self._ready:
            block = self._file.read(1 << 20)
            try:
                # A lone surrogate is kept here and rejected where it is used.
                self._ready = self._decode(block, not block).encode("utf-8", "surrogatepass")
            except UnicodeError as error:
                raise InputError(f"{self._path}: not valid {self._encoding}: {error}") from error
            if not block:
                break
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def close(self) -> None:
        """Also close the underlying file."""
        if not self.closed:
            self._file.close()
            super().close()


class _Decompressed(io.RawIOBase):
    """A decompressor's bytes, with errors that name the file."""

    def __init__(self, path: str, inner: Any, raw: Any) -> None:
        super().__init__()
        self._path, self._inner, self._raw = path, inner, raw

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer; 0 at the end. Raises InputError."""
        try:
            content = self._inner.read(len(buffer))
        except _FAULTS as error:
            raise _damaged(self._path, error) from error
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        """Close the decompressor and the compressed file, which the decompressor leaves open."""
        if not self.closed:
            try:
                self._inner.close()
            finally:
                self._raw.close()
                super().close()


def _damaged(path: str, error: Exception) -> InputError:
    if isinstance(error, InputError):
        return error
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(f"{path}: cannot be decompressed: {reason}")
