"""The outcome of a distillation: the model folder to ship, its README.md, result.json, and the summary table."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from shared.model_folder import model_folder
from shared.storage.store import Store
from trainer.models import replace_folder
from trainer.pipeline.choices import Choices
from trainer.pipeline.config import DistillConfig
from trainer.pipeline.place import Place
from trainer.pipeline.preparation import Prepared
from trainer.pipeline.running import read_seconds
from trainer.pipeline.students import student_seeds
from trainer.remote_run import publish_files
from trainer.result import RunResult

RESULT, FIGURES = "result.json", "report.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The figures of a finished distillation. Scores are on the test rows; kept: student's score / teacher's score.

    faster: batch size -> how many times faster than the teacher (fp32). onnx_bytes: file name -> size. teacher_column:
    the column of answers to learn, if they replace a teacher model; `teacher_metrics` are then the scores of these
    answers; agreement: share of test rows where the student predicts the same class, or the correlation for regression.
    students: folder -> test scores of each student, if several seeds were trained.
    """

    metrics: Mapping[str, float]
    teacher_metrics: Mapping[str, float]
    baselines: Mapping[str, Mapping[str, float]]
    kept: Mapping[str, float]
    parameters: int
    teacher_parameters: int | None
    smaller: float | None
    faster: Mapping[str, float]
    onnx_bytes: Mapping[str, int]
    minutes: Mapping[str, float]
    teacher_column: str | None = None
    agreement: float | None = None
    students: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def table(self) -> list[str]:
        """The summary, as lines of text."""
        lines = [f"{'':<22}{'answers' if self.teacher_column else 'teacher':>12}{'student':>12}"]
        for name, value in self.metrics.items():
            theirs = self.teacher_metrics.get(name)
            kept = f"   {self.kept[name]:.1%} kept" if name in self.kept else ""
            lines.append(f"{name:<22}{f'{theirs:.4f}' if theirs is not None else '–':>12}{value:>12.4f}{kept}")
            if self.students:
                scores = [one[name] for one in self.students.values()]
                spread = f"{statistics.mean(scores):.4f} ± {statistics.stdev(scores):.4f}"
                lines.append(f"{f'  all {len(scores)} students':<22}{'':>12}{spread:>24}")
        if self.agreement is not None:
            lines.append(f"{'agreement':<22}{'':>12}{self.agreement:>12.4f}   with the answers {self.teacher_column!r}")
        theirs_parameters = f"{self.teacher_parameters:,}" if self.teacher_parameters else "–"
        smaller = f"   {self.smaller:.1f} times smaller" if self.smaller else ""
        lines.append(f"{'parameters':<22}{theirs_parameters:>12}{self.parameters:>12,}{smaller}")
        for batch, ratio in self.faster.items():
            lines.append(f"{f'speed, batch {batch}':<22}{'':>12}{'':>12}   {ratio:.1f} times faster (fp32)")
        if self.onnx_bytes:
            lines.append(", ".join(f"onnx/{name} {size / 1e6:.1f} MB" for name, size in self.onnx_bytes.items()))
        steps = ", ".join(f"{name} {minutes:.1f}" for name, minutes in self.minutes.items())
        lines.append(f"minutes: {steps}; total {sum(self.minutes.values()):.1f}")
        return lines


def finish(
    config: DistillConfig,
    place: Place,
    prepared: Prepared,
    choices: Choices,
    results: Mapping[str, RunResult],
    chosen: str,
) -> Outcome:
    """Write model/, the tokenizer next to the ONNX files, README.md and result.json. Raises StoreError.

    results: folder -> result of each student; chosen: the folder of the one to ship.
    """
    store, student = place.store, place.path(chosen)
    model = place.folder / "model.partial"
    _copy_model(Path(model_folder(student)), model, choices.max_length)
    for name in (*TOKENIZER_FILES, "config.json"):
        if config.onnx and (model / name).is_file():
            store.put(f"onnx/{name}", (model / name).read_bytes())
    if place.is_remote:
        files = [path for path in sorted(model.rglob("*")) if path.is_file()]
        publish_files(store, [(f"model/{path.relative_to(model).as_posix()}", path) for path in files])
        shutil.rmtree(model)
    else:
        replace_folder(model, place.folder / "model")
    outcome = _outcome(store, results, chosen)
    content = json.dumps(asdict(outcome) | {"choices": asdict(choices), "data": asdict(prepared)}, indent=1)
    store.put("README.md", _readme(config, prepared, outcome).encode())
    store.put(RESULT, content.encode())
    return outcome


def _copy_model(source: Path, target: Path, max_length: int) -> None:
    """Copy the student's folder; its tokenizer truncates at the training length in any program that loads it."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    path = target / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) | {"model_max_length": max_length}
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _outcome(store: Store, results: Mapping[str, RunResult], chosen: str) -> Outcome:
    result = results[chosen]
    assert result.test is not None
    theirs = result.test.teacher or {}
    kept = {name: value / theirs[name] for name, value in result.test.scores.items() if theirs.get(name, 0.0) > 0}
    teacher = result.teacher_parameters
    parameters = int(result.parameters or 0)
    return Outcome(
        metrics=dict(result.test.scores),
        teacher_metrics=dict(theirs),
        baselines=dict(result.test.baselines),
        kept=kept,
        parameters=parameters,
        teacher_parameters=teacher,
        smaller=teacher / parameters if teacher and parameters else None,
        faster=_speeds(store),
        onnx_bytes={
            name.removeprefix("onnx/"): size for name, size in store.sizes("onnx").items() if name.endswith(".onnx")
        },
        minutes={name: round(seconds / 60, 2) for name, seconds in read_seconds(store).items()},
        teacher_column=result.teacher_column,
        agreement=result.test.agreement,
        students=_test_scores(results) if len(results) > 1 else {},
    )


def _test_scores(results: Mapping[str, RunResult]) -> dict[str, dict[str, float]]:
    return {name: dict(one.test.scores) for name, one in results.items() if one.test is not None}


def _speeds(store: Store) -> dict[str, float]:
    """Batch size -> speed-up in fp32, from the report's figures."""
    try:
        figures: dict[str, Any] = json.loads(store.read(FIGURES)) if store.exists(FIGURES) else {}
    except ValueError:
        return {}
    found: dict[str, float] = {}
    for timing in figures.get("timings", ()):
        for one in timing.get("measurements", ()):
            if one.get("dtype") == "fp32" and one.get("ratio"):
                found[str(one["batch_size"])] = float(one["ratio"])
    return found


def _readme(config: DistillConfig, prepared: Prepared, outcome: Outcome) -> str:
    table = "\n".join(outcome.table())
    columns = " ".join(["--text-column", *prepared.text_columns])
    students = ", ".join(f"`{name}/`" for name in student_seeds(config))
    parts = f"`augmented/`, {students}, `data/`, `logs/`"
    given = ""
    if outcome.teacher_column:
        given = (
            f"\nThe student learned the answers in column `{outcome.teacher_column}`, so it cannot be compared with a\n"
            "teacher model. `answers` are the scores of these answers themselves, on the test rows that have them.\n"
        )
    elif not config.teacher:
        parts = f"`teacher/`, {parts}"
    return f"""# A student of {config.data}

Made by `trainer distill`. You can pass this folder on as it is.

| | |
|---|---|
| `model/` | the student, a plain transformers folder with its [model card](model/README.md) |
| `onnx/model.onnx`, `onnx/model-int8.onnx` | the same model for any ONNX runtime, with the tokenizer |
| `report.html` | size, speed, scores and training curves |
| `result.json` | the figures below, and every choice |
| {parts} | inputs and intermediate results; not needed to use the student |

Trained on {prepared.num_train:,} rows, with checkpoints chosen on {prepared.num_dev:,} others. Scores on
{prepared.num_test:,} separate test rows, in fp32:
```
{table}
```{given}
Use it:
```
python -m trainer predict --model model --data new.csv {columns} --output answers.csv
```
```python
from trainer import load_student

load_student("model").predict(["a text"])
```
"""
