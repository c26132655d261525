"""Word-vector files in all common formats -> words and a matrix.

GloVe and word2vec text, fastText .vec, word2vec and fastText .bin (through gensim), each also compressed or in a .zip,
and folders with .npy. The format is detected from the content, not the name. Malformed lines are counted, reported and
skipped; more than 1% of them is an error.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import lzma
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augment_service.engine.vector_text import Readable, WordVectors, read_text
from shared.errors import ModelError
from shared.vector_path import check_vectors, npy_files, vector_file

FASTTEXT_MAGIC = (793712314).to_bytes(4, "little")
_OPENERS: tuple[tuple[bytes, Any], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
)
_PEEKED = 1 << 16


def read_vectors(path: str, limit: int | None) -> WordVectors:
    """Words and vectors of a file or folder; `limit`: read only the first ones. Raises ModelError."""
    check_vectors(path)
    folder = Path(path)
    if folder.is_dir():
        return _read_npy_folder(folder, limit)
    try:
        with _opened(path) as file:
            start = file.start
            if start.startswith(FASTTEXT_MAGIC):
                return _read_binary(path, file, limit, is_fasttext=True)
            if _is_word2vec_binary(start):
                return _read_binary(path, file, limit, is_fasttext=False)
            if start.startswith(b"\x80"):
                raise ModelError(
                    f"--glove {path} is a pickle, as written by gensim's save(); save text or binary vectors with "
                    "save_word2vec_format"
                )
            return read_text(path, file, limit)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ModelError(f"--glove {path}: {getattr(error, 'strerror', None) or error}") from error


@contextlib.contextmanager
def _opened(path: str) -> Iterator[_Peekable]:
    """The decompressed content of a file."""
    file = vector_file(path)
    with file.open("rb") as raw:
        magic = raw.read(6)
    if magic.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(file) as archive, archive.open(_member(path, file, archive)) as member:
            yield _Peekable(member)
        return
    opener = next((one for start, one in _OPENERS if magic.startswith(start)), open)
    with opener(file, "rb") as content:
        yield _Peekable(content)


class _Peekable:
    """A binary stream whose start can be peeked at."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.start = b""
        while len(self.start) < _PEEKED and (part := file.read(_PEEKED - len(self.start))):
            self.start += part
        self._rest = self.start

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            found, self._rest = self._rest + self._file.read(), b""
        elif self._rest:
            found, self._rest = self._rest[:size], self._rest[size:]
        else:
            found = self._file.read(size)
        return bytes(found)


def _member(path: str, file: Path, archive: zipfile.ZipFile) -> str:
    """The requested file of an archive: the named one, or the only one."""
    names = [one for one in archive.namelist() if not one.endswith("/") and not one.startswith("__MACOSX/")]
    wanted = Path(path).relative_to(file).as_posix()
    if wanted in names:
        return wanted
    if wanted == "." and len(names) == 1:
        return names[0]
    what = f"has no {wanted}, only" if wanted != "." else "contains several files:"
    raise ModelError(
        f"--glove {file} {what} {', '.join(names)[:200]}; choose one, such as {file}/{(names or ['x'])[-1]}"
    )


def _is_word2vec_binary(start: bytes) -> bool:
    """Whether a header `WORDS WIDTH` is followed by binary numbers."""
    header, newline, rest = start.partition(b"\n")
    parts = header.split()
    if not newline or len(parts) != 2 or not all(part.isdigit() for part in parts):
        return False
    _, blank, numbers = rest.partition(b" ")
    sample = numbers[: 4 * min(int(parts[1]), 100)]
    return bool(blank) and any(byte < 9 or 13 < byte < 32 or byte > 126 for byte in sample)


def _read_binary(path: str, file: Readable, limit: int | None, *, is_fasttext: bool) -> WordVectors:
    """Vectors read by gensim. Raises ModelError."""
    try:
        from gensim.models import KeyedVectors
        from gensim.models.fasttext import load_facebook_vectors
    except ImportError as error:
        raise ModelError(f"--glove {path}: binary vectors need gensim: pip install gensim") from error
    with tempfile.NamedTemporaryFile(suffix=".bin") as plain:
        # gensim takes a path, and recognises compressed files by their names.
        shutil.copyfileobj(file, plain)
        plain.flush()
        try:
            if is_fasttext:
                vectors = load_facebook_vectors(plain.name)
            else:
                vectors = KeyedVectors.load_word2vec_format(
                    plain.name, binary=True, limit=limit, unicode_errors="replace"
                )
        except (EOFError, ValueError, AssertionError, NotImplementedError, UnicodeDecodeError, IndexError) as error:
            first = str(error).split("\n", 1)[0]
            raise ModelError(f"--glove {path}: gensim cannot read it: {first or type(error).__name__}") from error
    words, matrix = list(vectors.index_to_key)[:limit], np.asarray(vectors.vectors, np.float32)[:limit]
    good = np.asarray([bool(word) and "\ufffd" not in word for word in words], np.bool_)
    problem = "" if good.all() else f"{int((~good).sum())} words are not valid UTF-8"
    kept = [word for word, is_good in zip(words, good.tolist(), strict=True) if is_good]
    if not kept or len(kept) < 0.99 * len(words):
        raise ModelError(f"--glove {path}: {problem or 'no vectors'}")
    return WordVectors(kept, matrix[good], fingerprint_of(kept, matrix[good]), problem)


def _read_npy_folder(folder: Path, limit: int | None) -> WordVectors:
    import pyarrow as pa
    import pyarrow.parquet as pq

    index, array = npy_files(folder)
    try:
        words = pq.read_table(index)["index"].to_pylist()
        matrix = np.load(array, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, KeyError, EOFError, pa.ArrowException) as error:
        raise ModelError(f"--glove {folder}: {str(error).splitlines()[0]}") from error
    if matrix.ndim != 2 or len(words) != len(matrix) or not np.issubdtype(matrix.dtype, np.floating):
        raise ModelError(
            f"--glove {folder}: needs a matrix of floats with one row per word; got {len(words)} words and a "
            f"{matrix.dtype} matrix of shape {matrix.shape}"
        )
    if not all(isinstance(word, str) for word in words):
        raise ModelError(f"--glove {folder}: column index of {index.name} must contain words")
    words, matrix = words[:limit], matrix[:limit]
    return WordVectors(words, matrix, fingerprint_of(words, matrix), "")


def fingerprint_of(words: list[str], matrix: NDArray[np.float32]) -> str:
    """sha256 hex of all words and all numbers."""
    digest = hashlib.sha256("\n".join(words).encode() + str(matrix.shape).encode())
    step = max((8 << 20) // max(matrix.strides[0], 1), 1)
    for start in range(0, len(matrix), step):
        digest.update(np.ascontiguousarray(matrix[start : start + step]).tobytes())
    return digest.hexdigest()
