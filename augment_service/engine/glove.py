"""Word vectors: the K nearest words by cosine, for words that are not a single token of the masked LM.

gensim holds the vectors. Their unit-length rows are stored in one .npy file that the processes of a node share by
memory map. A float32 product for all words of a shard finds a shortlist, which is then ranked in float64.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.embedded import EMBEDDED, embedded_glove_path
from shared.errors import ModelError

Neighbour = tuple[str, float]

_SHORTLIST_MARGIN = 32
_BLOCK_BYTES = 32 << 20
"""Memory of the scores of one block of words: 20 words at a time over 400,000 vectors."""
_SAMPLE_STEP, _SAMPLE_RANK = 64, 8
"""Every 64th score is looked at for a threshold that about 64 x 8 scores reach: far more than a shortlist holds."""
_NEVER = ("<unk>",)
_CHECKED_ROWS = 8192
_MAX_KEPT_WORDS = 100_000
"""Bound of the cache of answers; without it, a long-lived process would keep one for every word it ever saw."""


class GloveVectors:
    """Unit-length vectors of the first V words of a file. Use `GloveVectors.load`."""

    def __init__(self, vectors: Any, words: Sequence[str], unit: NDArray[np.float32], fingerprint: str) -> None:
        self.keyed_vectors = vectors
        self.words, self._unit, self.fingerprint = words, unit, fingerprint
        self._never = [vectors.key_to_index[word] for word in _NEVER if word in vectors.key_to_index]
        self._never += np.flatnonzero(~np.any(unit, axis=1)).tolist()
        self._cache: dict[tuple[str, int], tuple[Neighbour, ...]] = {}

    @classmethod
    def load(cls, path: str, limit: int | None = None) -> GloveVectors:
        """Load `embedded`, GloVe text, word2vec text (.txt, .vec, .gz), or a folder with .npy and index.parquet.

        limit: use only the first V words. Raises ModelError naming the line if the file is malformed.
        """
        words, matrix, fingerprint = _read(path, limit)
        from gensim.models import KeyedVectors

        unit_path = _cache_folder() / f"{fingerprint[:32]}.unit.npy"
        if not unit_path.exists():
            _write_unit_rows(matrix, unit_path)
        unit = np.load(unit_path, mmap_mode="r")
        _check_finite(path, words, unit, unit_path)
        vectors = KeyedVectors(vector_size=unit.shape[1])
        vectors.vectors, vectors.index_to_key = unit, words
        # A word listed twice gets its last vector, as in the reference's dictionary.
        vectors.key_to_index = {word: index for index, word in enumerate(words)}
        return cls(vectors, words, unit, fingerprint)

    def nearest(self, words: Sequence[str], k: int) -> dict[str, tuple[Neighbour, ...]]:
        """Per word its K nearest (word, cosine) without itself, best first; empty for a word without a vector."""
        if len(self._cache) > _MAX_KEPT_WORDS:
            self._cache.clear()
        missing = [word for word in dict.fromkeys(words) if (word, k) not in self._cache]
        known = [word for word in missing if word in self.keyed_vectors.key_to_index]
        for word in set(missing) - set(known):
            self._cache[word, k] = ()
        block = max(_BLOCK_BYTES // (4 * max(len(self._unit), 1)), 1)
        for start in range(0, len(known), block):
            part = known[start : start + block]
            for word, neighbours in zip(part, self._rank(part, k), strict=True):
                self._cache[word, k] = neighbours
        return {word: self._cache[word, k] for word in dict.fromkeys(words)}

    def _rank(self, words: Sequence[str], k: int) -> list[tuple[Neighbour, ...]]:
        index = np.asarray([self.keyed_vectors.key_to_index[word] for word in words])
        queries = np.asarray(self._unit[index])
        scores = queries @ self._unit.T
        scores[:, self._never] = -np.inf
        shortlist = largest(scores, k + _SHORTLIST_MARGIN)
        results: list[tuple[Neighbour, ...]] = []
        for row, own in enumerate(index.tolist()):
            if not np.any(queries[row]):
                results.append(())
                continue
            ids = np.sort(shortlist[row])
            exact = self._unit[ids].astype(np.float64)
            exact /= np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), 1e-30)
            query = queries[row].astype(np.float64)
            cosines = exact @ (query / np.linalg.norm(query))
            cosines[~np.isfinite(scores[row, ids])] = -np.inf
            best = ids[np.lexsort((ids, -cosines))]
            cosine_of = dict(zip(ids.tolist(), cosines.tolist(), strict=True))
            neighbours: dict[str, float] = {}
            for one in best.tolist():
                word = self.words[one]
                # If the file lists a word again, its earlier row is not its vector.
                is_current = self.keyed_vectors.key_to_index[word] == one
                if one != own and word != words[row] and is_current and np.isfinite(cosine_of[one]):
                    neighbours.setdefault(word, cosine_of[one])
            results.append(tuple(list(neighbours.items())[:k]))
        return results


def largest(scores: NDArray[np.float32], count: int) -> list[NDArray[np.int64]]:
    """Per row the indices of its `count` largest scores, in no order.

    scores: (rows, vectors) float32, -inf for what is left out. A threshold from a sample of the row leaves a few
    hundred scores to choose from, which takes a fraction of the time and memory of partitioning the whole row.
    """
    count = min(count, scores.shape[1])
    sample = scores[:, ::_SAMPLE_STEP]
    if sample.shape[1] < 2 * _SAMPLE_RANK:
        return list(np.argpartition(scores, -count, axis=1)[:, -count:])
    thresholds = np.partition(sample, -_SAMPLE_RANK, axis=1)[:, -_SAMPLE_RANK]
    found: list[NDArray[np.int64]] = []
    for row, threshold in zip(scores, thresholds, strict=True):
        candidates = np.flatnonzero(row >= threshold)
        if len(candidates) < count:
            found.append(np.argpartition(row, -count)[-count:])
        else:
            found.append(candidates[np.argpartition(row[candidates], -count)[-count:]])
    return found


def _read(path: str, limit: int | None) -> tuple[list[str], NDArray[np.float32], str]:
    folder = embedded_glove_path() if path == EMBEDDED else Path(path)
    if folder.is_dir():
        return _read_npy_folder(folder, limit)
    if not folder.is_file():
        raise ModelError(f"--glove {path}: no such file; needs GloVe text, word2vec text, or `embedded`")
    words: list[str] = []
    rows: list[NDArray[np.float32]] = []
    digest = hashlib.sha256(str(limit).encode())
    for number, line in _lines(folder):
        if limit is not None and len(words) >= limit:
            break
        digest.update(line.encode())
        parts = line.rstrip().split(" ")
        if number == 1 and len(parts) == 2 and all(part.isdigit() for part in parts):
            continue
        width = len(rows[0]) if rows else len(parts) - 1
        try:
            row = np.asarray(parts[len(parts) - width :], np.float32)
        except ValueError:
            row = np.zeros(0, np.float32)
        if width < 2 or len(row) != width or len(parts) < width + 1 or not np.isfinite(row).all():
            expected = f"a word and {width} numbers, as in the first line" if rows else "a word and its numbers"
            raise ModelError(f"--glove {path} line {number}: expected {expected}; got {line[:40].rstrip()!r}")
        words.append(" ".join(parts[: len(parts) - width]))
        rows.append(row)
    if not rows:
        raise ModelError(f"--glove {path} contains no vectors")
    return words, np.stack(rows), digest.hexdigest()


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    opener: Any = gzip.open if is_gzip else open
    try:
        with opener(path, "rt", encoding="utf-8", errors="replace", newline="\n") as file:
            yield from enumerate(file, start=1)
    except (OSError, EOFError) as error:
        raise ModelError(f"--glove {path}: {error}") from error


def _read_npy_folder(folder: Path, limit: int | None) -> tuple[list[str], NDArray[np.float32], str]:
    import pyarrow.parquet as pq

    index, arrays = sorted(folder.glob("*index.parquet")), sorted(folder.glob("*emb.npy"))
    if not index or not arrays:
        raise ModelError(f"--glove {folder}: needs *index.parquet (column index) and *emb.npy")
    words = pq.read_table(index[0])["index"].to_pylist()
    matrix = np.load(arrays[0], mmap_mode="r")
    if matrix.ndim != 2 or len(words) != len(matrix):
        raise ModelError(f"--glove {folder}: {len(words)} words for a matrix of shape {matrix.shape}")
    words, matrix = words[:limit], matrix[:limit]
    # Hashing all 80 MB would take a moment; the words and every 97th row identify the file as well.
    digest = hashlib.sha256("\n".join(words).encode() + str(matrix.shape).encode())
    digest.update(np.ascontiguousarray(matrix[::97]).tobytes())
    return words, matrix, digest.hexdigest()


def _write_unit_rows(matrix: NDArray[np.float32], path: Path) -> None:
    norms = np.linalg.norm(np.asarray(matrix, np.float64), axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):  # infinite numbers; `_check_finite` refuses them
        unit = (matrix / np.where(norms > 0, norms, 1.0)).astype(np.float32)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        np.save(file, unit)
    temporary.replace(path)


def _check_finite(path: str, words: list[str], unit: NDArray[np.float32], unit_path: Path) -> None:
    for start in range(0, len(unit), _CHECKED_ROWS):
        bad = ~np.isfinite(unit[start : start + _CHECKED_ROWS]).all(axis=1)
        if bad.any():
            word = words[start + int(bad.argmax())]
            # A cached file of such numbers must not outlive the vectors that it was made from.
            unit_path.unlink(missing_ok=True)
            raise ModelError(f"--glove {path}: the vector of {word!r} has numbers that are NaN or infinite")


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
