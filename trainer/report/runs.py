"""Run folders, as the training commands leave them -> typed records; unfinished runs included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shared.errors import InputError, ModelError
from shared.glue import TASKS
from shared.model_folder import is_run
from shared.storage.objects import is_remote
from shared.storage.remote_model import fetched_model
from trainer.data.tasks import sequence_length
from trainer.report.history import History, read_history
from trainer.report.model_folder import ModelFolder, read_model_folder, read_object
from trainer.result import RunResult, read_result

COMMANDS = ("teacher", "general", "task")
FULL = "full"
ScoredOn = Literal["test", "dev"]
"""The rows of a score. dev: those that chose the best checkpoint; test: others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run. folder: where it is, a path or a URI.

    options: what config.json recorded. variant: the same for runs that differ only in their seed. length: tokens of the
    longest input. result: None while the run is unfinished. notes: what is missing from the folder.
    """

    folder: str
    command: str
    options: Mapping[str, Any]
    task: str
    name: str
    variant: str
    seed: int
    length: int
    history: History
    result: RunResult | None
    model: ModelFolder | None
    teacher: ModelFolder | None
    notes: Sequence[str]

    @property
    def is_finished(self) -> bool:
        """Whether there is a result."""
        return self.result is not None

    @property
    def metric(self) -> str:
        """The task's first metric, which selects the best checkpoint; empty where nothing was measured."""
        return (self.result.metric if self.result else "") or next(iter(self.last_dev), "")

    @property
    def last_dev(self) -> Mapping[str, float]:
        """The result's scores, or the newest ones of an unfinished run."""
        if self.result and self.result.dev:
            return self.result.dev
        return self.history.dev[-1].values if self.history.dev else {}

    @property
    def teacher_dev(self) -> Mapping[str, float]:
        """The teacher's scores on the same rows; empty where they were not measured."""
        return (self.result.teacher_dev if self.result else None) or {}

    @property
    def scored_on(self) -> ScoredOn:
        """The rows on which student and teacher are compared: the test rows if both were scored on them."""
        test = self.result.test if self.result else None
        return "test" if test and (test.teacher or not self.teacher_dev) else "dev"

    def scores(self, rows: ScoredOn) -> Mapping[str, float]:
        """The scores on these rows; empty if there are none."""
        if rows == "dev":
            return self.last_dev
        return self.result.test.scores if self.result and self.result.test else {}

    def teacher_scores(self, rows: ScoredOn) -> Mapping[str, float]:
        """The teacher's scores on the same rows; empty if it was not scored."""
        if rows == "dev":
            return self.teacher_dev
        return (self.result.test.teacher if self.result and self.result.test else None) or {}

    @property
    def label(self) -> str:
        """Name of the run on the page."""
        parts = [self.variant] if self.command == "task" else [self.command, self.task, self.name]
        return f"{' · '.join(dict.fromkeys(part for part in parts if part))}, seed {self.seed}"


def read_run(path: str, copy: Path | None = None) -> Run:
    """Read a run folder. copy: where its files are on this machine if `path` is a URI.

    Raises InputError or ManifestError that names the file and what is wrong, StoreError.
    """
    folder = copy or Path(path)
    if not folder.is_dir():
        raise InputError(f"--runs {path}: no such folder")
    options = read_object(folder / "config.json", "not a run of the trainer (it has no config.json)")
    command = str(options.get("command"))
    if command not in COMMANDS:
        raise InputError(
            f"--runs {path}: config.json is from {options.get('command')!r}, not from trainer {', '.join(COMMANDS)}"
        )
    result = read_result(folder)
    model = read_model_folder(folder / "model") if (folder / "model").is_dir() else None
    notes: list[str] = []
    if result is None:
        notes.append("unfinished (no result.json yet): curves and scores so far")
    elif model is None:
        notes.append("no model folder, so sizes and timings are missing")
    teacher = None
    # General distillation learns from a pre-trained encoder, which has no score and no classifier to compare with.
    if command == "task" and (named := result.teacher if result else options.get("teacher")):
        teacher_path = _teacher_folder(folder, str(named))
        if teacher_path is None:
            notes.append(f"its teacher {named} no longer exists, so size and speed are not compared")
        else:
            teacher = read_model_folder(teacher_path)
    task = (result.task if result else "") or str(options.get("task") or "")
    return Run(
        folder=path,
        command=command,
        options=options,
        task=task,
        name=str(options.get("name") or ""),
        variant=_variant(command, options),
        seed=int(options.get("seed") or 0),
        length=_longest_input(task, options),
        history=read_history(folder / "metrics.jsonl"),
        result=result,
        model=model,
        teacher=teacher,
        notes=notes,
    )


def _variant(command: str, options: Mapping[str, Any]) -> str:
    """The name, and the ablation unless it is full."""
    name, ablation = str(options.get("name") or ""), str(options.get("ablation") or FULL)
    if command != "task":
        return name or command
    return " · ".join(part for part in (name, ablation if ablation != FULL or not name else "") if part)


def _longest_input(task: str, options: Mapping[str, Any]) -> int:
    known = next((one for one in TASKS.values() if one.name == task), None)
    columns = known.text_columns if known else options.get("text_column") or ()
    return sequence_length(options.get("max_length"), len(columns) == 2)


def _teacher_folder(run: Path, named: str) -> Path | None:
    """The teacher by the path that the run recorded, relative to here or to the run, or by its URI."""
    if is_remote(named):
        try:
            return Path(fetched_model(named, "--teacher"))
        except ModelError:
            return None
    for candidate in (Path(named), run / named, run.parent / named):
        if is_run(candidate):
            return candidate / "model"
        if (candidate / "config.json").is_file():
            return candidate
    return None
