"""On-disk cache of parsed vectors: parsed from text once, memory-mapped from then on.

An entry is keyed by the content of its source and holds unit-length rows, words, and checksums of both. A second, tiny
file maps the source's size and times to its content hash, so that a start need not read the source. Entries are written
under temporary names and renamed: concurrent writers write the same content, and a damaged entry is rebuilt.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augment_service.engine.vector_files import read_vectors
from augment_service.engine.vector_text import WordVectors
from shared.errors import ModelError
from shared.vector_path import find_vectors

logger = logging.getLogger(__name__)

FORMAT = 1
_RACY_SECONDS = 2.0
"""A source that changed this recently may change again within the resolution of its timestamps, so it is reread."""
_BLOCK_ROWS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedVectors:
    """Words and their unit-length rows, (words, width) float32 and memory-mapped.

    zero_rows: indices of words whose vector is zero. problem: which lines of the source were skipped, and why.
    """

    words: list[str]
    unit: NDArray[np.float32]
    fingerprint: str
    zero_rows: list[int]
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """The contents of an entry's .json file other than the words."""

    format: int
    shape: list[int]
    unit_crc: int
    words_crc: int
    zero_rows: list[int]
    problem: str


def cached_vectors(path: str, limit: int | None) -> CachedVectors:
    """The vectors of a source, from the cache if possible. Raises ModelError."""
    cache = _cache_folder()
    state = _state_of(path, limit)
    found = None
    if state and (fingerprint := _known_fingerprint(cache, state)):
        found = _load(cache, fingerprint)
    if found is None:
        vectors = read_vectors(path, limit)
        found = _load(cache, vectors.fingerprint)
        if found is None:
            found = _store(cache, path, vectors)
        if state and state == _state_of(path, limit):
            _write(cache / f"{state}.source.json", json.dumps({"fingerprint": vectors.fingerprint}).encode())
    if found.problem:
        logger.warning("vectors_left_out", extra={"fields": {"file": path, "problem": found.problem}})
    return found


def _state_of(path: str, limit: int | None) -> str | None:
    """Key of a source's current state, from size and times; None if it is missing or was changed just now.

    It includes the inode change time, which no copying tool can set.
    """
    whole = Path(path)
    files = sorted(whole.iterdir()) if whole.is_dir() else [one for one in (find_vectors(path),) if one]
    facts: list[Any] = [str(whole.resolve()), limit]
    for one in files:
        try:
            stat = one.stat()
        except OSError:
            return None
        if abs(time.time() - max(stat.st_mtime, stat.st_ctime)) < _RACY_SECONDS:
            return None
        facts.append([one.name, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32] if files else None


def _known_fingerprint(cache: Path, state: str) -> str | None:
    try:
        known = json.loads((cache / f"{state}.source.json").read_bytes())
        return str(known["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _load(cache: Path, fingerprint: str) -> CachedVectors | None:
    """The entry if it exists and its checksums match, else None."""
    name = fingerprint[:32]
    try:
        stored = json.loads((cache / f"{name}.json").read_bytes())
        words = stored.pop("words")
        entry = _Entry(**stored)
        unit = np.load(cache / f"{name}.unit.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, EOFError):
        return None
    is_right = entry.format == FORMAT and list(unit.shape) == entry.shape and unit.dtype == np.float32
    is_right = is_right and len(words) == len(unit) and _words_crc(words) == entry.words_crc
    if not is_right or _crc(unit) != entry.unit_crc:
        logger.warning("damaged_vector_cache", extra={"fields": {"entry": str(cache / name)}})
        return None
    return CachedVectors(
        words=words, unit=unit, fingerprint=fingerprint, zero_rows=entry.zero_rows, problem=entry.problem
    )


def _store(cache: Path, path: str, vectors: WordVectors) -> CachedVectors:
    """Write an entry, and return it. Raises ModelError for numbers that are not finite, and for disk errors.

    The rows are mapped before they are renamed, so the entry may be removed or replaced by others at any time.
    """
    name = vectors.fingerprint[:32]
    matrix = vectors.matrix
    norms = np.linalg.norm(np.asarray(matrix, np.float64), axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):  # infinite numbers are rejected below
        unit = (matrix / np.where(norms > 0, norms, 1.0)).astype(np.float32)
    bad = ~np.isfinite(unit).all(axis=1)
    if bad.any():
        word = vectors.words[int(bad.argmax())]
        raise ModelError(f"--glove {path}: the vector of {word!r} contains NaN or infinite numbers")
    entry = _Entry(
        format=FORMAT,
        shape=list(unit.shape),
        unit_crc=_crc(unit),
        words_crc=_words_crc(vectors.words),
        zero_rows=np.flatnonzero(~np.any(unit, axis=1)).tolist(),
        problem=vectors.problem,
    )
    mapped = _write_rows(cache / f"{name}.unit.npy", unit)
    if _crc(mapped) != entry.unit_crc:
        raise ModelError(f"the vector cache {cache} returned different bytes from those written: check the disk")
    _write(cache / f"{name}.json", json.dumps(asdict(entry) | {"words": vectors.words}).encode())
    return CachedVectors(
        words=vectors.words,
        unit=mapped,
        fingerprint=vectors.fingerprint,
        zero_rows=entry.zero_rows,
        problem=entry.problem,
    )


def _write_rows(path: Path, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Write the rows, and return them memory-mapped. Raises ModelError."""
    with _renamed_when_written(path) as temporary:
        with temporary.open("wb") as file:
            np.save(file, rows)
        mapped: NDArray[np.float32] = np.load(temporary, mmap_mode="r", allow_pickle=False)
    return mapped


def _write(path: Path, content: bytes) -> None:
    with _renamed_when_written(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def _renamed_when_written(path: Path) -> Iterator[Path]:
    """A temporary path next to `path`, renamed to it at the end of the block. Raises ModelError."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ModelError(
            f"cannot write the vector cache {path.parent}: {error.strerror or error}; free some space, or set "
            "AUGMENT_SERVICE_CACHE to a writable folder"
        ) from error


def _crc(rows: NDArray[np.float32]) -> int:
    crc = 0
    for start in range(0, len(rows), _BLOCK_ROWS):
        crc = zlib.crc32(np.ascontiguousarray(rows[start : start + _BLOCK_ROWS]).data, crc)
    return crc


def _words_crc(words: list[str]) -> int:
    return zlib.crc32("\n".join(words).encode("utf-8", "surrogatepass"))


def _cache_folder() -> Path:
    base = os.environ.get("AUGMENT_SERVICE_CACHE") or os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "tinybert-augment"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(
            f"cannot create the vector cache {folder}: {error}; set AUGMENT_SERVICE_CACHE to a writable folder"
        ) from error
    return folder
