"""Data sets of the Hugging Face hub: `hf://OWNER/NAME[/CONFIG][:SPLIT]` -> the Arrow files of the `datasets` cache."""

from __future__ import annotations

import re

from shared.errors import InputError, UsageError

HUB = "hf://"
_ID = re.compile(r"(?P<name>[\w.-]+/[\w.-]+|[\w.-]+)(?:/(?P<config>[\w.-]+))?(?::(?P<split>[\w.]+))?", re.ASCII)


def hub_files(uri: str) -> list[str]:
    """Download a split (default: train) and return its files. Raises InputError, UsageError."""
    found = _ID.fullmatch(uri.removeprefix(HUB))
    if found is None:
        raise UsageError(
            f"--input {uri}: must be hf://OWNER/NAME[/CONFIG][:SPLIT], such as hf://nyu-mll/glue/sst2:train"
        )
    try:
        import datasets
    except ImportError as error:
        raise InputError(f"--input {uri}: needs the `datasets` library: pip install datasets") from error
    try:
        data = datasets.load_dataset(found["name"], found["config"], split=found["split"] or "train")
    except Exception as error:  # whatever the library, the network and the hub raise
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise InputError(f"--input {uri}: {lines[0][:300]}") from error
    files = [str(one["filename"]) for one in data.cache_files]
    if not files:
        raise InputError(f"--input {uri}: the data set has no files in the cache of the `datasets` library")
    return files
