"""`result.json`: what is written is read back, earlier files still read, damaged ones are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shared.errors import ManifestError
from trainer.result import MaskedAccuracy, RunResult, read_result, write_result

TASK_KEYS = {
    "command",
    "task",
    "name",
    "ablation",
    "seed",
    "metric",
    "rows",
    "parameters",
    "teacher",
    "teacher_dev",
    "teacher_parameters",
    "mapping",
    "dev",
    "score",
    "best_step",
    "steps",
    "samples",
    "seconds",
    "data_wait_share",
}
TASK = RunResult(
    command="task",
    task="SST-2",
    ablation="full",
    seed=3,
    parameters=40_000,
    dev={"accuracy": 0.8},
    metric="accuracy",
    score=0.8,
    best_step=70,
    rows=16,
    teacher="teacher/model",
    teacher_dev={"accuracy": 0.9},
    teacher_parameters=90_000,
    mapping=(2, 4),
    steps=90,
    samples=720,
    seconds=12.5,
    data_wait_share=0.01,
)
MLM = RunResult(
    command="mlm",
    tokens=1000,
    held_out={"text.txt": MaskedAccuracy(num_tokens=90, perplexity=20.5, top_1=0.25, top_5=0.5, top_15=0.75)},
)


@pytest.mark.parametrize("result", [TASK, MLM, RunResult(command="general")])
def test_a_result_comes_back_equal(tmp_path: Path, result: RunResult) -> None:
    assert read_result(tmp_path) is None
    write_result(tmp_path, result)
    assert read_result(tmp_path) == result
    assert json.loads((tmp_path / "result.json").read_text()) == json.loads(json.dumps(result.to_json()))


def test_the_keys_are_those_of_earlier_versions() -> None:
    assert TASK.to_json().keys() == TASK_KEYS
    assert RunResult(command="teacher").to_json().keys() == TASK_KEYS - {"ablation", "teacher_parameters", "mapping"}


def test_a_file_of_another_version_is_read(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps({"command": "task", "dev": {"f1": 1}, "later": [1]}))
    assert read_result(tmp_path) == RunResult(command="task", dev={"f1": 1.0})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"result\.json is not valid JSON"),
        ("[1]", r"result\.json should hold a JSON object"),
        ({"task": "SST-2"}, "result.json: command: Field required"),
        ({"command": "task", "dev": 3}, "result.json: dev: "),
        ({"command": "task", "steps": "many"}, "result.json: steps: "),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: Any, message: str) -> None:
    (tmp_path / "result.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ManifestError, match=message) as caught:
        read_result(tmp_path)
    assert "\n" not in str(caught.value)
