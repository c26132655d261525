"""Run folders as the training commands leave them -> records; also those of runs that are still going on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.errors import InputError
from shared.glue import TASKS
from trainer.data.tasks import sequence_length

COMMANDS = ("teacher", "general", "task")
FULL = "full"


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A saved model: weights counted from its files' headers, and the numbers that decide its speed."""

    folder: Path
    parameters: int
    weight_bytes: int
    shape: Mapping[str, Any]

    @property
    def shape_text(self) -> str:
        """Like `4 layers × 312, FFN 1200, 12 heads`."""
        one = self.shape
        return f"{one['layers']} layers × {one['hidden']}, FFN {one['ffn']}, {one['heads']} heads"


@dataclass(frozen=True, slots=True)
class Run:
    """One run folder. `losses` and `dev` are lines of metrics.jsonl, in order; `result` is None while unfinished."""

    folder: Path
    config: Mapping[str, Any]
    losses: Sequence[Mapping[str, Any]]
    dev: Sequence[Mapping[str, Any]]
    result: Mapping[str, Any] | None
    model: ModelFolder | None
    teacher: ModelFolder | None
    notes: list[str] = field(default_factory=list)

    @property
    def command(self) -> str:
        """teacher, general or task."""
        return str(self.config["command"])

    @property
    def task(self) -> str:
        """Name of the task; empty for general distillation."""
        return str((self.result or {}).get("task") or self.config.get("task") or "")

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self.config.get("seed") or 0)

    @property
    def is_finished(self) -> bool:
        """Whether there is a result."""
        return self.result is not None

    @property
    def variant(self) -> str:
        """What the runs that differ only by their seed have in common: the name, and the ablation unless it is full."""
        name, ablation = str(self.config.get("name") or ""), str(self.config.get("ablation") or FULL)
        if self.command != "task":
            return name or self.command
        return " · ".join(part for part in (name, ablation if ablation != FULL or not name else "") if part)

    @property
    def metric(self) -> str:
        """The metric that decides; empty where none was measured."""
        return str((self.result or {}).get("metric") or next(iter(self.last_dev), ""))

    @property
    def last_dev(self) -> Mapping[str, float]:
        """The result's scores, or the newest ones of an unfinished run."""
        found: Mapping[str, float] = (self.result or {}).get("dev") or (self.dev[-1]["dev"] if self.dev else {})
        return found

    @property
    def length(self) -> int:
        """Pieces of the longest input that the run trained on."""
        known = next((one for one in TASKS.values() if one.name == self.task), None)
        columns = known.text_columns if known else self.config.get("text_column") or ()
        return sequence_length(self.config.get("max_length"), len(columns) == 2)


def read_run(path: str) -> Run:
    """Read a run folder. Raises InputError that names the file and what is wrong with it."""
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"--runs {path}: no such folder")
    config = _read_object(folder / "config.json", "no run of the trainer (it has no config.json)")
    if config.get("command") not in COMMANDS:
        raise InputError(
            f"--runs {path}: config.json is not of trainer {', '.join(COMMANDS)} (command: {config.get('command')!r})"
        )
    result = _read_object(folder / "result.json") if (folder / "result.json").exists() else None
    if result is not None and not isinstance(result.get("dev", {}), dict):
        raise InputError(f"{folder / 'result.json'}: dev should be an object of metrics")
    losses, dev = _read_metrics(folder / "metrics.jsonl")
    notes: list[str] = []
    model = read_model_folder(folder / "model") if (folder / "model").is_dir() else None
    if result is None:
        notes.append("unfinished: no result.json yet; curves and scores are those so far")
    elif model is None:
        notes.append("no model folder: sizes and timings are left out")
    teacher = None
    # General distillation learns from an un-tuned encoder, which has no score and no classifier to compare with.
    if config["command"] == "task" and (named := (result or config).get("teacher")):
        teacher_path = _teacher_folder(folder, str(named))
        if teacher_path is None:
            notes.append(f"its teacher {named} is not there any more: the comparison of size and speed is left out")
        else:
            teacher = read_model_folder(teacher_path)
    return Run(folder, config, losses, dev, result, model, teacher, notes)


def read_model_folder(folder: Path) -> ModelFolder:
    """Sizes of a saved model, without loading it. Raises InputError."""
    config = _read_object(folder / "config.json", "no model folder (it has no config.json)")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise InputError(f"{folder} has no weights (*.safetensors)")
    shape = {
        "type": config.get("model_type"),
        "layers": config.get("num_hidden_layers"),
        "hidden": config.get("hidden_size"),
        "ffn": config.get("intermediate_size"),
        "heads": config.get("num_attention_heads"),
        "pieces": config.get("vocab_size"),
    }
    parameters = sum(_count_weights(path) for path in weights)
    return ModelFolder(folder, parameters, sum(path.stat().st_size for path in weights), shape)


def _count_weights(path: Path) -> int:
    """Weights of a safetensors file, from its header: 8 bytes of length, then JSON with every tensor's shape."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return sum(math.prod(one["shape"]) for name, one in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, MemoryError, OverflowError) as error:
        raise InputError(f"{path} is no safetensors file: {error}") from error


def _teacher_folder(run: Path, named: str) -> Path | None:
    """The teacher as the run named it: from here, or from the run's own place."""
    for candidate in (Path(named), run / named, run.parent / named):
        if (candidate / "config.json").is_file():
            return candidate
    return None


def _read_metrics(path: Path) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """(lines with losses, lines with dev scores). The last line may be half written: the run may be going on."""
    if not path.exists():
        return [], []
    losses: list[Mapping[str, Any]] = []
    dev: list[Mapping[str, Any]] = []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict) or "stage" not in entry or "samples" not in entry:
                raise ValueError("it should be an object with stage and samples")
        except ValueError as error:
            if number == len(lines):
                break
            raise InputError(f"{path} line {number}: {error}") from error
        (dev if "dev" in entry else losses).append(entry)
    return losses, dev


def _read_object(path: Path, missing: str | None = None) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"--runs {path.parent}: {missing or f'{path.name} is missing'}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or f'no JSON ({error})'}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} should hold a JSON object")
    return value
