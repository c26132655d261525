"""Locates word vectors and checks that they were fetched, before anything reads them."""

from __future__ import annotations

from pathlib import Path

from shared.errors import ModelError
from shared.storage.foreign_files import START_BYTES, what_came_instead


def find_vectors(path: str) -> Path | None:
    """The file behind `FILE` or `ARCHIVE.zip/MEMBER`; None if there is none."""
    whole = Path(path)
    if whole.is_file():
        return whole
    return next((one for one in whole.parents if one.suffix.lower() == ".zip" and one.is_file()), None)


def vector_file(path: str) -> Path:
    """As `find_vectors`. Raises ModelError if there is none."""
    found = find_vectors(path)
    if found is None:
        raise ModelError(
            f"--glove {path}: no such file; expected GloVe or word2vec text, word2vec or fastText .bin, or `embedded`"
        )
    return found


def npy_files(folder: Path) -> tuple[Path, Path]:
    """The words and the matrix in a folder. Raises ModelError if they are missing."""
    index, arrays = sorted(folder.glob("*index.parquet")), sorted(folder.glob("*emb.npy"))
    if not index or not arrays:
        raise ModelError(f"--glove {folder}: the folder must contain *index.parquet (column index) and *emb.npy")
    return index[0], arrays[0]


def check_vectors(path: str) -> None:
    """Raises ModelError for vectors that are missing or were not fetched. Reads only the start of their files."""
    folder = Path(path)
    for file in npy_files(folder) if folder.is_dir() else (vector_file(path),):
        try:
            with file.open("rb") as opened:
                start = opened.read(START_BYTES)
        except OSError as error:
            raise ModelError(f"--glove {file}: {error.strerror}") from error
        if (kind := what_came_instead(start)) is not None:
            raise ModelError(f"--glove {file} is {kind}")
