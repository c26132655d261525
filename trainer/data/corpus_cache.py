"""Corpus files as token ids on local disk: tokenized once, then memory-mapped by every process and in later runs.

Memory use does not grow with the corpus, and a resumed run does not tokenize it again. An entry is a folder
named by a hash of everything that determines its content. It holds a checksum of each of its files, so a damaged entry
is rebuilt. A process holds a lock on each entry that it uses until it exits, and only unused entries are evicted to
keep the folder within its limit. The cache never makes a run fail: without space or locks, the ids are kept in memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import logging
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shared.errors import InputError
from trainer.config import CorpusConfig
from trainer.data.batches import to_offsets
from trainer.data.corpus import is_held_out, read_lines
from trainer.data.token_cache import cache_folder
from trainer.data.token_file import IDS, OFFSETS, TokenFile, map_tokens

logger = logging.getLogger(__name__)

VERSION = "corpus-1"
TOKENIZE_LINES = 2048
FOLDER, FACTS, TRAIN, HELD_OUT = "corpora", "facts.json", "train", "held_out"
CHECK_BYTES = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusCache:
    """Tokenizes corpus files into `folder`/corpora, of at most `max_bytes`, or more if the corpora in use need it.

    tokenizer_digest: hash of the tokenizer's behaviour. held_out: share of the lines to hold out. encoding,
    text_column: as in `read_lines`.
    """

    folder: str
    max_bytes: int
    tokenizer: Any
    tokenizer_digest: str
    held_out: float
    encoding: str = "auto"
    text_column: str | None = None

    @classmethod
    def of(cls, config: CorpusConfig, held_out: float, tokenizer: Any, tokenizer_digest: str) -> CorpusCache:
        """The cache of a command."""
        return cls(
            folder=config.token_cache or str(cache_folder()),
            max_bytes=config.token_cache_bytes,
            tokenizer=tokenizer,
            tokenizer_digest=tokenizer_digest,
            held_out=held_out,
            encoding=config.encoding,
            text_column=config.text_column,
        )

    def get(self, path: str, digest: str) -> tuple[TokenFile, TokenFile]:
        """Training and held-out lines of a file. digest: sha256 of its bytes.

        Raises InputError when it has no training lines, and what `read_lines` raises.
        """
        found = self._from_disk(path, digest) if self.max_bytes else None
        if found is None:
            sinks = _MemorySink(), _MemorySink()
            self._tokenize(path, *sinks)
            found = sinks[0].tokens(), sinks[1].tokens()
        if not found[0].num_lines:
            raise InputError(f"--corpus {path} contains no text to train on")
        return found

    def _from_disk(self, path: str, digest: str) -> tuple[TokenFile, TokenFile] | None:
        """As `get`, memory-mapped; None if that is not possible."""
        suffixes = [one.lower() for one in PurePosixPath(path).suffixes[-2:]]
        reading = [suffixes, self.held_out, self.encoding, self.text_column]
        key = [VERSION, digest, *reading, self.tokenizer_digest]
        entry = Path(self.folder) / FOLDER / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:40]
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            # Never closed: the lock is held until this process ends.
            use = os.open(_use_lock(entry), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            fcntl.flock(use, fcntl.LOCK_SH)
            with entry.with_name(f"{entry.name}.make").open("ab") as make:
                fcntl.flock(make, fcntl.LOCK_EX)
                if not _is_whole(entry):
                    self._make(path, entry)
                    self._drop_oldest(entry)
            os.utime(entry)
            return map_tokens(str(entry / TRAIN)), map_tokens(str(entry / HELD_OUT))
        except OSError as error:
            fields = {"folder": self.folder, "reason": str(error.strerror or error)}
            logger.warning("corpus_in_memory", extra={"fields": fields})
            return None

    def _make(self, path: str, entry: Path) -> None:
        """Write an entry under a temporary name, then rename it. Raises OSError."""
        for left_behind in entry.parent.glob(f"{entry.name}.*.partial"):
            # Left by a killed process: only one process builds an entry at a time.
            shutil.rmtree(left_behind)
        partial = Path(tempfile.mkdtemp(prefix=f"{entry.name}.", suffix=".partial", dir=entry.parent))
        try:
            with (
                contextlib.closing(_DiskSink(partial / TRAIN)) as train,
                contextlib.closing(_DiskSink(partial / HELD_OUT)) as held_out,
            ):
                self._tokenize(path, train, held_out)
            facts = {one.name: [one.stat().st_size, _checksum(one)] for one in sorted(partial.iterdir())}
            (partial / FACTS).write_text(json.dumps(facts), encoding="utf-8")
            shutil.rmtree(entry, ignore_errors=True)
            partial.rename(entry)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def _tokenize(self, path: str, train: _Sink, held_out: _Sink) -> None:
        for lines in _chunks(read_lines(path, self.encoding, self.text_column), TOKENIZE_LINES):
            encoded = self.tokenizer(lines, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
            apart = [is_held_out(line, self.held_out) for line in lines]
            for sink, is_apart in ((train, False), (held_out, True)):
                sink.add([ids for ids, one in zip(encoded, apart, strict=True) if one == is_apart])

    def _drop_oldest(self, newest: Path) -> None:
        """Evict the least recently used entries until the folder is within its limit, except those in use."""
        entries = [one for one in newest.parent.iterdir() if one.is_dir() and one != newest]
        sizes = {one: _bytes_of(one) for one in [*entries, newest]}
        total = sum(sizes.values())
        for entry in sorted(entries, key=_used_at):
            if total <= self.max_bytes:
                return
            # A .partial is in use by the process that builds it; if that was killed, it is evicted like the others.
            name = entry.with_name(entry.name.split(".")[0])
            with contextlib.suppress(OSError), _use_lock(name).open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(entry)
                total -= sizes[entry]


class _Sink(Protocol):
    """Receives the ids of lines, in order."""

    def add(self, rows: Sequence[Sequence[int]]) -> None:
        """Append lines."""
        ...


class _MemorySink:
    """Ids in memory."""

    def __init__(self) -> None:
        self._ids: list[NDArray[np.int32]] = []
        self._lengths: list[NDArray[np.int64]] = []

    def add(self, rows: Sequence[Sequence[int]]) -> None:
        self._ids.append(_joined(rows))
        self._lengths.append(np.asarray([len(row) for row in rows], np.int64))

    def tokens(self) -> TokenFile:
        """All lines so far."""
        ids = np.concatenate([np.zeros(0, np.int32), *self._ids])
        return TokenFile(ids=ids, offsets=to_offsets(np.concatenate([np.zeros(0, np.int64), *self._lengths])))


class _DiskSink:
    """Ids and offsets in two files, named as in `map_tokens`."""

    def __init__(self, path: Path) -> None:
        self._ids = Path(f"{path}.{IDS}").open("wb")  # noqa: SIM115
        self._offsets = Path(f"{path}.{OFFSETS}").open("wb")  # noqa: SIM115
        self._end = 0
        self._offsets.write(np.zeros(1, np.int64).tobytes())

    def add(self, rows: Sequence[Sequence[int]]) -> None:
        self._ids.write(_joined(rows).tobytes())
        ends = self._end + np.cumsum([len(row) for row in rows], dtype=np.int64)
        self._offsets.write(ends.tobytes())
        self._end = int(ends[-1]) if len(ends) else self._end

    def close(self) -> None:
        """Flush and close both files. Raises OSError."""
        self._ids.close()
        self._offsets.close()


def _joined(rows: Sequence[Sequence[int]]) -> NDArray[np.int32]:
    return np.fromiter(itertools.chain.from_iterable(rows), np.int32)


def _chunks(lines: Iterator[str], size: int) -> Iterator[list[str]]:
    chunk: list[str] = []
    for line in lines:
        chunk.append(line)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _use_lock(entry: Path) -> Path:
    return entry.with_name(f"{entry.name}.use")


def _is_whole(entry: Path) -> bool:
    """Whether an entry exists and its files are intact."""
    try:
        facts = json.loads((entry / FACTS).read_text(encoding="utf-8"))
        for name, (size, checksum) in facts.items():
            if (entry / name).stat().st_size != size or _checksum(entry / name) != checksum:
                raise ValueError(name)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, AttributeError, TypeError):
        logger.warning("token_cache_damaged", extra={"fields": {"file": str(entry), "next": "it will be rebuilt"}})
        return False
    return set(facts) == {f"{part}.{kind}" for part in (TRAIN, HELD_OUT) for kind in (IDS, OFFSETS)}


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(CHECK_BYTES):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _bytes_of(folder: Path) -> int:
    total = 0
    # Another process may rename or remove it at this moment.
    with contextlib.suppress(OSError):
        for one in folder.iterdir():
            total += one.stat().st_size
    return total


def _used_at(folder: Path) -> int:
    with contextlib.suppress(OSError):
        return folder.stat().st_mtime_ns
    return 0
