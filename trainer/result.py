"""`result.json`: the facts of a finished run, with one writer and one reader."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from shared.errors import ManifestError
from trainer.run_folder import RESULT, write_atomically


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedAccuracy:
    """Scores of a masked LM over `num_tokens` masked tokens: perplexity and top-k accuracy."""

    num_tokens: int
    perplexity: float
    top_1: float
    top_5: float
    top_15: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalScores:
    """Scores of the finished model on the test file's `rows`; teacher: its teacher's scores on the same rows.

    agreement: if the teacher's answers came with the data, the share of rows with the same class, or the Pearson
    correlation with them.
    """

    rows: int
    scores: Mapping[str, float]
    baselines: Mapping[str, Mapping[str, float]]
    teacher: Mapping[str, float] | None = None
    agreement: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """Facts and results of a run; the field names are the JSON keys. None means unknown or not applicable.

    dev: metric -> value on the `rows` rows that chose the best checkpoint (`selected_on`), at `best_step` with `score`
    by `selected_by`; metric: the task's main one; baselines: scores on the same rows of models that read no text.
    test: scores on rows not used for selection. labels: for multi-label tasks, label -> precision, recall, f1 and
    support (rows that have it), on the test rows if there are any, else on the dev rows. teacher: path or hub id of the
    teacher; teacher_column: the column of the data that had its answers instead. mapping: g(m), the teacher layer of
    each student layer.
    samples: training examples seen; tokens: real tokens seen; data_wait_share: share of the time spent waiting for
    data. held_out: corpus file -> scores of a masked LM.
    """

    command: str
    task: str | None = None
    name: str = ""
    ablation: str | None = None
    seed: int | None = None
    parameters: int | None = None
    dev: Mapping[str, float] = field(default_factory=dict)
    metric: str | None = None
    score: float | None = None
    best_step: int | None = None
    rows: int = 0
    selected_on: str | None = None
    selected_by: str | None = None
    baselines: Mapping[str, Mapping[str, float]] | None = None
    test: FinalScores | None = None
    labels: Mapping[str, Mapping[str, float]] | None = None
    teacher: str | None = None
    teacher_column: str | None = None
    teacher_dev: Mapping[str, float] | None = None
    teacher_parameters: int | None = None
    mapping: tuple[int, ...] | None = None
    steps: int = 0
    samples: int = 0
    tokens: int | None = None
    seconds: float = 0.0
    data_wait_share: float | None = None
    held_out: Mapping[str, MaskedAccuracy] | None = None

    def to_json(self) -> dict[str, Any]:
        """The JSON object; keys that apply only to some commands are left out if None."""
        values = asdict(self)
        if self.mapping is not None:
            values["mapping"] = list(self.mapping)
        return {name: value for name, value in values.items() if value is not None or name not in _SPECIFIC}


_SPECIFIC = {
    *("ablation", "teacher_column", "teacher_parameters", "mapping", "tokens", "held_out"),
    *("selected_on", "selected_by", "baselines", "test", "labels"),
}
_KEYS = {one.name for one in fields(RunResult)}


def write_result(folder: Path, result: RunResult) -> None:
    """Write `result.json`, the mark of a finished run. Raises StoreError."""
    content = json.dumps(result.to_json(), indent=1).encode()
    write_atomically(folder / RESULT, lambda file: file.write(content))


def read_result(folder: Path) -> RunResult | None:
    """The result of a finished run, None when there is none yet. Raises ManifestError when it is damaged."""
    path = folder / RESULT
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ManifestError(f"{path} cannot be read ({error}); remove it and run the command again") from error
    return parse_result(content, str(path))


def parse_result(content: bytes, path: str) -> RunResult:
    """The result in the content of a file. path: where it is, for messages. Raises ManifestError when it is damaged."""
    try:
        values = json.loads(content)
    except ValueError as error:
        raise ManifestError(f"{path} is not valid JSON ({error}); remove it and run the command again") from error
    if not isinstance(values, dict):
        raise ManifestError(f"{path} should hold a JSON object; remove it and run the command again")
    known = {name: value for name, value in values.items() if name in _KEYS}
    try:
        return TypeAdapter(RunResult).validate_python(known)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise ManifestError(f"{path}: {where}: {problem['msg']}; remove it and run the command again") from error
