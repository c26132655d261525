"""State of a run on disk: atomic checkpoints, the metrics file, and the check that a folder is this run's own."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from shared.errors import ManifestError, StoreError

CONFIG, METRICS, RESULT, CHECKPOINT = "config.json", "metrics.jsonl", "result.json", "checkpoint.pt"


def open_run(output: str, command: str, asked: Mapping[str, Any], told: Mapping[str, Any] | None = None) -> Path:
    """The folder of a run; writes `config.json` or checks that the one there asks for the same.

    told: what stands in `config.json` too, and may change. Raises StoreError, and ManifestError naming the first option
    that differs.
    """
    folder = Path(output)
    wanted = json.loads(json.dumps({"command": command} | dict(asked)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / CONFIG
        if not path.exists():
            content = json.dumps(wanted | dict(told or {}), indent=1).encode()
            write_atomically(path, lambda file: file.write(content))
            return folder
        before = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _store_error(folder, error) from error
    except ValueError as error:
        raise ManifestError(f"{folder / CONFIG} is no JSON: {error}") from error
    for name in wanted:
        if before.get(name) != wanted.get(name):
            raise ManifestError(
                f"{folder} holds a run with another {name.replace('_', '-')} ({_short(before.get(name))}, now "
                f"{_short(wanted.get(name))}); use another --output, or remove the folder"
            )
    return folder


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint whole or not at all: the one before survives a full disk. Raises StoreError."""
    write_atomically(path, lambda file: torch.save(dict(state), file))


def load_checkpoint(path: Path, device: str) -> dict[str, Any] | None:
    """The last whole checkpoint, or None."""
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise StoreError(f"{path} cannot be read ({error}); remove it to begin this stage anew") from error
    return state


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file under a temporary name, flush it to the disk, put it in place. Raises StoreError."""
    temporary = path.with_name(path.name + ".partial")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise _store_error(path, error) from error


def append_metrics(folder: Path, entry: Mapping[str, Any]) -> None:
    """Add a line to the run's metrics. Raises StoreError."""
    try:
        with (folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(entry)) + "\n")
    except OSError as error:
        raise _store_error(folder / METRICS, error) from error


def keep_metrics(folder: Path, num_lines: int) -> None:
    """Keep the lines that stood there at the checkpoint a run resumes from: what came later is done again."""
    path = folder / METRICS
    if path.exists():
        kept = path.read_bytes().splitlines(keepends=True)[:num_lines]
        write_atomically(path, lambda file: file.write(b"".join(kept)))


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Write `result.json`, the mark of a finished run."""
    write_atomically(folder / RESULT, lambda file: file.write(json.dumps(dict(result), indent=1).encode()))


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result of a finished run, or None."""
    path = folder / RESULT
    if not path.exists():
        return None
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def _store_error(path: Path, error: Exception) -> StoreError:
    # torch.save raises a RuntimeError of its own over the OSError of a failed write.
    cause = error if isinstance(error, OSError) else error.__context__
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreError(
            f"no space left for {path}; what was there before is kept. Free some and run the same command again"
        )
    return StoreError(f"{path}: {getattr(cause, 'strerror', None) or error}")


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
