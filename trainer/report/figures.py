"""Types of the report's figures; their field names are the keys of the report's JSON file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trainer.report.measurements import Timing
from trainer.report.model_folder import ModelShape

FORMAT = "distillation-report-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFacts:
    """Heading, time of creation, and the machine (processor, cores, torch, transformers, python)."""

    title: str
    created: str
    machine: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Mean, sample standard deviation (None for one value), minimum and maximum."""

    mean: float
    deviation: float | None
    least: float
    greatest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSummary:
    """Size of a model; `folder`, `weight_bytes` and `shape` are None where only the parameters are known."""

    folder: str | None = None
    parameters: int | None = None
    weight_bytes: int | None = None
    shape: ModelShape | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherSummary(ModelSummary):
    """A teacher with its scores on the student's dev rows."""

    dev: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One run. `smaller`: parameters of teacher / student; `timing`: index into the report's timings; `baselines`:
    scores of models that read no text, on the rows of `dev`; `test`: scores on rows not used for selection;
    `agreement`: on these rows, with answers that came with the data; `retention_on`: the rows of `retention`, test or
    dev."""

    folder: str
    command: str
    task: str
    variant: str
    seed: int
    finished: bool
    notes: Sequence[str]
    metric: str
    score: float | None
    dev: Mapping[str, float]
    rows: int | None
    baselines: Mapping[str, Mapping[str, float]]
    test: Mapping[str, float]
    agreement: float | None
    retention: Mapping[str, float]
    retention_on: str
    samples: float | None
    seconds: float | None
    data_wait_share: float | None
    mapping: Sequence[int] | None
    length: int
    model: ModelSummary | None
    teacher: TeacherSummary | None
    smaller: float | None
    timing: int | None
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantSummary:
    """Runs that differ by their seed. `variant`: label on the page; `name`: its name in the runs."""

    variant: str
    name: str
    runs: Sequence[str]
    seeds: Sequence[int]
    scores: Sequence[float]
    score: Spread
    retention: Spread | None
    parameters: int | None
    samples: float
    seconds: float
    difference_from_full: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSummary:
    """All students of a task. `scored_on`: rows of all scores, test or dev; `teachers`: folder -> its score by the
    task's metric."""

    metric: str
    scored_on: str
    variants: Sequence[VariantSummary]
    teachers: Mapping[str, float | None]
    unfinished: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Everything that the page shows."""

    title: str
    created: str
    machine: Mapping[str, Any]
    alternations: int | None
    runs: Sequence[RunSummary]
    tasks: Mapping[str, TaskSummary]
    timings: Sequence[Timing]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"format": FORMAT} | asdict(self)

    def of(self, folder: str) -> RunSummary:
        """The figures of the run in `folder`."""
        return next(one for one in self.runs if one.folder == folder)
