"""metrics.jsonl of a run: losses and dev scores over time, also while the run is still writing it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import InputError

TOTAL = "loss"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line. `samples` were seen and `seconds` had passed when it was written; `values`: loss terms or dev scores.

    Loss terms are named without their prefix (`hidden`, not `loss_hidden`); their sum is called TOTAL.
    """

    stage: str
    samples: float
    seconds: float | None
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Losses and dev scores, each in order of time."""

    losses: Sequence[Record] = ()
    dev: Sequence[Record] = ()

    @property
    def samples(self) -> float | None:
        """Samples at the newest record."""
        return max((one.samples for one in self._newest()), default=None)

    @property
    def seconds(self) -> float | None:
        """Seconds at the newest record."""
        return max((one.seconds for one in self._newest() if one.seconds is not None), default=None)

    def _newest(self) -> list[Record]:
        return [*self.losses[-1:], *self.dev[-1:]]


def read_history(path: Path) -> History:
    """Read metrics.jsonl; a missing file is an empty history. Raises InputError that names the line.

    A last line that is incomplete is left out: the run may be writing it.
    """
    if not path.exists():
        return History()
    losses: list[Record] = []
    dev: list[Record] = []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict) or "stage" not in entry or "samples" not in entry:
                raise ValueError("expected an object with stage and samples")
            if "dev" in entry:
                dev.append(_record(entry, _numbers(entry["dev"])))
            else:
                losses.append(_record(entry, _loss_terms(entry)))
        except ValueError as error:
            if number == len(lines):
                break
            raise InputError(f"{path} line {number}: {error}") from error
    return History(losses=losses, dev=dev)


def _record(entry: Mapping[str, Any], values: Mapping[str, float]) -> Record:
    samples, seconds = entry["samples"], entry.get("seconds")
    if not isinstance(samples, int | float):
        raise ValueError("samples should be a number")
    return Record(stage=str(entry["stage"]), samples=samples, seconds=seconds, values=values)


def _loss_terms(entry: Mapping[str, Any]) -> dict[str, float]:
    names = [name for name in entry if name == TOTAL or name.startswith("loss_")]
    return _numbers({name.removeprefix("loss_"): entry[name] for name in names})


def _numbers(values: Any) -> dict[str, float]:
    if not isinstance(values, dict):
        raise ValueError("dev should be an object of metrics")
    return {str(name): value for name, value in values.items() if isinstance(value, int | float)}
