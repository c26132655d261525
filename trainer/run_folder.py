"""A run's folder on disk: the check that it belongs to this run, atomic files, and the metrics file."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from shared.cli.table_format import DETECTED, ONE_LABEL
from shared.errors import ManifestError, StoreError, UsageError
from shared.model_folder import CONFIG

logger = logging.getLogger(__name__)

METRICS, RESULT = "metrics.jsonl", "result.json"
KEEPS_STAGES = "keeps_stages"
"""Key in `config.json` of runs that keep the end of each stage, so that they can be extended."""
ABSENT = {
    **DETECTED,
    **ONE_LABEL,
    "balance": False,
    "hard_label_weight": 0.0,
    "mined_pairs": None,
    "n_a_per_label": [],
    "pairs": "both",
    "seeds": 1,
    "teacher_classes": [],
    "teacher_form": "auto",
    "unlabelled": [],
}
"""Values of options missing from `config.json`: the run began before they existed."""


def check_is_local(path: str, option: str) -> None:
    """Raises UsageError for a URI: what these commands write needs a local folder."""
    if "://" in path or path.startswith(("s3:", "gs:", "az:", "abfs:", "hdfs:")):
        raise UsageError(
            f"{option} {path}: this command writes to a local folder only; copy it afterwards, or mount the bucket"
        )


def open_run(
    output: str,
    command: str,
    identity: Mapping[str, Any],
    runtime: Mapping[str, Any] | None = None,
    growing: Sequence[str] = (),
    shown: str | None = None,
) -> Path:
    """The folder of a run; writes `config.json`, or checks that an existing one describes the same run.

    identity: options that must match; runtime: what `config.json` records without checking it; growing: options that
    extend the run when they are larger than before, which makes a finished run unfinished. shown: what messages call
    the folder. Raises StoreError, and ManifestError naming the first option that differs.
    """
    check_is_local(output, "--output")
    folder = Path(output)
    called = shown or output
    wanted = json.loads(json.dumps({"command": command} | dict(identity)))
    path = folder / CONFIG
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _write_options(path, wanted | dict(runtime or {}))
            return folder
        before = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _store_error(folder, error) from error
    except ValueError as error:
        raise ManifestError(f"{called}/{CONFIG} is not valid JSON: {error}") from error
    if not isinstance(before, dict):
        raise ManifestError(f"{called}/{CONFIG} should hold a JSON object; use another --output, or remove the folder")
    before = {name: ABSENT[name] for name in wanted if name in ABSENT} | before
    grown = {name: wanted[name] for name in growing if name in before and _is_larger(before[name], wanted.get(name))}
    for name in wanted:
        if before.get(name) != wanted.get(name) and name not in grown:
            raise ManifestError(
                f"{called} holds a run with a different {name.replace('_', '-')} ({_short(before.get(name))}, now "
                f"{_short(wanted.get(name))}); use another --output, or remove the folder"
            )
    if grown:
        _extend(folder, before, grown, called)
    return folder


def _extend(folder: Path, before: Mapping[str, Any], grown: Mapping[str, Any], shown: str) -> None:
    name, value = next(iter(grown.items()))
    option = f"--{name.replace('_', '-')}"
    if not before.get(KEEPS_STAGES):
        raise ManifestError(
            f"{shown} holds a run of an earlier version, which cannot be extended ({option} {_short(before[name])}, "
            f"now {_short(value)}); use another --output, or remove the folder"
        )
    logger.info("extended", extra={"fields": dict(grown)})
    # In this order: a result next to the new options would be taken for theirs.
    (folder / RESULT).unlink(missing_ok=True)
    _write_options(folder / CONFIG, dict(before) | dict(grown))


def _is_larger(before: Any, now: Any) -> bool:
    """Whether an option has grown; None means unlimited."""
    return before is not None and (now is None or now > before)


def _write_options(path: Path, options: Mapping[str, Any]) -> None:
    content = json.dumps(dict(options), indent=1).encode()
    write_atomically(path, lambda file: file.write(content))


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file under a temporary name, flush it to the disk, then rename it. Raises StoreError."""
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
    """Keep the lines written before the checkpoint that a run resumes from: later steps are repeated."""
    path = folder / METRICS
    if path.exists():
        kept = path.read_bytes().splitlines(keepends=True)[:num_lines]
        write_atomically(path, lambda file: file.write(b"".join(kept)))


def _store_error(path: Path, error: Exception) -> StoreError:
    # torch.save raises a RuntimeError of its own over the OSError of a failed write.
    cause = error if isinstance(error, OSError) else error.__context__
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreError(
            f"no space left for {path}; the previous version is kept. Free some space and run the same command again"
        )
    return StoreError(f"{path}: {getattr(cause, 'strerror', None) or error}")


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
