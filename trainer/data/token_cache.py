"""Tokenized shards on local disk: made once, then memory-mapped in later epochs, by other ranks and in other runs.

An entry is one Arrow file, named by a hash of everything that determines its content. It holds a checksum, so a damaged
entry is rebuilt. A lock per entry lets one process build it while the others wait: ranks on one machine that start at
different shards of a window share the work. The folder has a size limit; the least recently used entries are evicted
first. The cache never makes a run fail: without space or locks, shards are tokenized without it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trainer.data.batches import Pieces, Tokenized

logger = logging.getLogger(__name__)

VERSION = "tokens-1"
SUFFIX = ".arrow"
PAIRS, CHECKSUM_BYTES = "pairs", 4
ENVIRONMENT = ("TRAINER_CACHE", "AUGMENT_SERVICE_CACHE", "XDG_CACHE_HOME")


def cache_folder() -> Path:
    """Where tokenized shards are kept unless --token-cache says otherwise."""
    base = next((os.environ[name] for name in ENVIRONMENT if os.environ.get(name)), str(Path.home() / ".cache"))
    return Path(base) / "tinybert-tokens"


@dataclass(slots=True, kw_only=True)
class TokenCache:
    """A folder of at most `max_bytes`, shared by any number of processes. Picklable."""

    folder: str
    max_bytes: int
    is_broken: bool = False

    def get(self, key: Sequence[object], make: Callable[[], Tokenized]) -> Tokenized:
        """The entry of a key, built if missing. key: everything that determines its content, JSON-serialisable."""
        if self.is_broken or not self.max_bytes:
            return make()
        digest = hashlib.sha256(json.dumps([VERSION, *key]).encode()).hexdigest()
        path = Path(self.folder) / f"{digest[:40]}{SUFFIX}"
        if (found := read_entry(path)) is not None:
            return found
        with self._lock(path):
            if (found := read_entry(path)) is not None:
                return found
            made = make()
            if not self.is_broken:
                self._keep(path, made)
            return made

    @contextlib.contextmanager
    def _lock(self, path: Path) -> Iterator[None]:
        """Lets only one process build an entry. The lock is released when its process ends, however it ends."""
        with contextlib.ExitStack() as stack:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(path.with_suffix(".lock").open("ab"))
                fcntl.flock(file, fcntl.LOCK_EX)
                # Removed while held: a waiting process then finds the entry, or builds it again.
                stack.callback(path.with_suffix(".lock").unlink, missing_ok=True)
            except OSError as error:
                self._give_up(error)
            yield

    def _keep(self, path: Path, entry: Tokenized) -> None:
        try:
            with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as file:
                try:
                    write_entry(file.name, entry)
                    Path(file.name).replace(path)
                except BaseException:
                    Path(file.name).unlink(missing_ok=True)
                    raise
            self._drop_oldest()
        except OSError as error:
            self._give_up(error)

    def _drop_oldest(self) -> None:
        """Evict the least recently used entries until the folder is within its limit. Others may do so concurrently."""
        entries = []
        for one in os.scandir(self.folder):
            with contextlib.suppress(FileNotFoundError):
                if one.name.endswith((SUFFIX, ".partial")):
                    facts = one.stat()
                    entries.append((facts.st_mtime_ns, facts.st_size, one.path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.max_bytes:
                return
            with contextlib.suppress(FileNotFoundError):
                Path(path).unlink()
            total -= size

    def _give_up(self, error: OSError) -> None:
        if not self.is_broken:
            reason = "no space left" if error.errno == errno.ENOSPC else str(error.strerror or error)
            logger.warning("token_cache_unused", extra={"fields": {"folder": self.folder, "reason": reason}})
        self.is_broken = True


def write_entry(path: str, entry: Tokenized) -> None:
    """Write one entry: an Arrow file and the checksum of its bytes. Raises OSError."""
    columns = {"ids": _lists(entry.pieces.offsets, entry.pieces.ids.astype(np.int32, copy=False))}
    if entry.has_pairs:
        columns["type_ids"] = _lists(entry.pieces.offsets, entry.pieces.type_ids)
    columns |= {"label": pa.array(entry.labels) if entry.labels.ndim == 1 else _matrix(entry.labels)}
    columns |= {"source_id": pa.array(entry.keys[:, 0]), "n": pa.array(entry.keys[:, 1])}
    if entry.logits is not None:
        columns["logits"] = _matrix(entry.logits)
    facts = {PAIRS: str(int(entry.has_pairs))}
    batch = pa.record_batch(list(columns.values()), names=list(columns)).replace_schema_metadata(facts)
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    content = pa.memory_map(path).read_buffer()
    with Path(path).open("ab") as file:
        file.write(_checksum(content))


def read_entry(path: Path) -> Tokenized | None:
    """A memory-mapped entry; None if it is missing or damaged."""
    try:
        content = pa.memory_map(str(path)).read_buffer()
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowInvalid):
        _report_damage(path)
        return None
    size = content.size - CHECKSUM_BYTES
    # Checked before Arrow reads it, because corrupt bytes can crash the process.
    if size <= 0 or content.slice(size).to_pybytes() != _checksum(content.slice(0, size)):
        _report_damage(path)
        return None
    batch = pa.ipc.open_file(pa.BufferReader(content.slice(0, size))).get_batch(0)
    ids, labels = batch["ids"], batch["label"]
    has_pairs = (batch.schema.metadata or {}).get(PAIRS.encode()) == b"1"
    tokens = ids.values.to_numpy()
    with contextlib.suppress(OSError):
        os.utime(path)
    return Tokenized(
        pieces=Pieces(
            tokens,
            batch["type_ids"].values.to_numpy() if has_pairs else np.zeros(len(tokens), np.uint8),
            ids.offsets.to_numpy(),
        ),
        labels=_rows_of(labels) if pa.types.is_fixed_size_list(labels.type) else labels.to_numpy(zero_copy_only=False),
        keys=np.stack([batch["source_id"].to_numpy(), batch["n"].to_numpy()], axis=1),
        logits=_rows_of(batch["logits"]) if "logits" in batch.schema.names else None,
        has_pairs=has_pairs,
    )


def _report_damage(path: Path) -> None:
    logger.warning("token_cache_damaged", extra={"fields": {"file": str(path), "next": "it will be rebuilt"}})


def _lists(offsets: NDArray[Any], values: NDArray[Any]) -> pa.LargeListArray:
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values))


def _matrix(values: NDArray[np.float32]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _rows_of(lists: pa.FixedSizeListArray) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = lists.values.to_numpy().reshape(len(lists), lists.type.list_size)
    return rows


def _checksum(content: pa.Buffer) -> bytes:
    return zlib.crc32(content).to_bytes(CHECKSUM_BYTES, "little")
