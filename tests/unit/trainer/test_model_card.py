"""The card of a saved model states what is known, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
import yaml

from tests.support.runs import save_random_classifier
from trainer.model_card import write_model_card
from trainer.result import RunResult

RESULT = RunResult(
    command="task",
    task="SST-2",
    ablation="full",
    seed=3,
    dev={"accuracy": 0.87, "f1": 0.5},
    metric="accuracy",
    rows=872,
    samples=1_347_000,
    seconds=812.5,
    parameters=27_074,
    teacher="runs/teacher/model",
    teacher_dev={"accuracy": 0.9, "f1": 0.0},
    teacher_parameters=270_740,
    mapping=(2, 4),
)
RECIPE = {"lr": 5e-5, "prediction_epochs": 3.0, "seed": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_classifier(tmp_path_factory.mktemp("card") / "model")


def card(folder: Path, result: RunResult, **options: Any) -> str:
    write_model_card(folder, result, **options)
    return (folder / "README.md").read_text(encoding="utf-8")


def test_a_student_card_compares_it_with_its_teacher_and_lists_sizes_and_recipe(folder: Path) -> None:
    text = card(folder, RESULT, recipe=RECIPE, data="SST-2 train, augmented", license="apache-2.0")
    front = yaml.safe_load(text.split("---")[1])
    assert front["pipeline_tag"] == "text-classification"
    assert front["metrics"] == ["accuracy", "f1"]
    assert front["license"] == "apache-2.0"
    assert "knowledge-distillation" in front["tags"]
    for line in (
        "# TinyBERT student for SST-2",
        "| accuracy | 0.8700 | 0.9000 | 96.7% |",
        "| f1 | 0.5000 | 0.0000 | – |",
        "27,074 (10.0 times fewer than its teacher)",
        "BERT with 2 layers × 32",
        "| --prediction-epochs | 3 |",
        "| samples seen | 1,347,000 |",
        "| g(m) | 2, 4 |",
        "| data | SST-2 train, augmented |",
        "It copies its teacher",
    ):
        assert line in text
    assert "--seed" not in text


def test_what_nobody_measured_is_not_stated(folder: Path) -> None:
    text = card(folder, RunResult(command="general", parameters=27_074, teacher="embedded"))
    assert "## Scores" not in text
    assert "teacher" not in text
    assert "the encoder `embedded`" in text
    assert "None" not in text
    assert "its classifier is untrained" in text


def test_a_teacher_card_calls_it_a_teacher(folder: Path) -> None:
    text = card(folder, RunResult(command="teacher", task="CoLA", dev={"matthews": 0.4}))
    assert "# Teacher for CoLA" in text
    assert "tinybert" not in text
    assert "| matthews | 0.4000 |" in text


@pytest.mark.parametrize("is_regression", [False, True])
def test_the_code_in_the_card_runs(folder: Path, is_regression: bool, capsys: pytest.CaptureFixture[str]) -> None:
    if is_regression:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"problem_type": "regression"}))
    code = card(folder, RESULT).split("```python\n")[1].split("```")[0]
    if is_regression:
        assert "logits.item()" in code
        return
    exec(compile(code.replace('folder = "."', f"folder = {str(folder)!r}"), "card", "exec"), {})
    assert capsys.readouterr().out.strip() in ("LABEL_0", "LABEL_1")
    assert transformers.AutoConfig.from_pretrained(folder).num_labels == 2


def test_the_code_in_the_card_of_a_pair_task_gives_the_model_two_texts(folder: Path) -> None:
    two = 'tokenizer("Is it a good film?", "It is gripping and honest.", return_tensors="pt")'
    assert two in card(folder, RunResult(command="task", task="MRPC"))
    assert two in card(folder, RunResult(command="task"), recipe={"text_column": ["a", "b"]})
    assert two not in card(folder, RunResult(command="task", task="SST-2"))
