"""Run folders like those of the training commands, with small random models."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.support.models import save_random_model

HEADS = 4


def save_random_classifier(
    folder: Path, hidden: int = 32, layers: int = 2, labels: int = 2, kind: str = "bert"
) -> Path:
    """Save a sequence classification model with random weights, and a tokenizer, in plain transformers form."""
    save_random_model("distilbert" if kind == "distilbert" else "bert-uncased", folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(hidden * 10 + layers)
    common: dict[str, Any] = {"vocab_size": len(tokenizer), "max_position_embeddings": 64, "num_labels": labels}
    if kind == "distilbert":
        config = transformers.DistilBertConfig(**common, dim=hidden, n_layers=layers, n_heads=HEADS, hidden_dim=48)
        model: Any = transformers.DistilBertForSequenceClassification(config)
    else:
        sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": HEADS}
        config = transformers.BertConfig(**common, **sizes, intermediate_size=2 * hidden)
        model = transformers.BertForSequenceClassification(config)
    with torch.no_grad():
        for weight in model.parameters():
            # Larger than the usual initial weights, so that logits depend on every token of the input.
            weight.add_(torch.randn_like(weight) * 0.1)
    model.save_pretrained(folder)
    return folder


def write_teacher_run(folder: Path, task: str = "SST-2", score: float = 0.9) -> Path:
    """Write a finished run of `trainer teacher`."""
    save_random_classifier(folder / "model", hidden=64, layers=4)
    _write(folder, {"command": "teacher", "task": task, "seed": 0, "max_length": None})
    lines = [_loss("teacher", step, {"loss": 0.7 * math.exp(-step / 400)}) for step in range(50, 1001, 50)]
    lines += [
        _dev("teacher", step, {"accuracy": score - 0.2 * math.exp(-step / 300)}) for step in range(250, 1001, 250)
    ]
    result = _result("teacher", task, 0, score) | {"parameters": 231_234, "teacher": None, "teacher_dev": None}
    return _finish(folder, lines, result)


def write_task_run(
    folder: Path,
    teacher: Path,
    ablation: str = "full",
    seed: int = 0,
    score: float = 0.86,
    task: str = "SST-2",
    name: str = "",
    is_finished: bool = True,
    hidden: int = 32,
    test: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run of `trainer task`, finished or still in progress. test: its FinalScores."""
    config = {
        "command": "task",
        "task": task,
        "seed": seed,
        "teacher": str(teacher / "model"),
        "augmented": "out/x",
        "ablation": ablation,
        "name": name,
        "max_length": 32,
    }
    _write(folder, config)
    lines = []
    for step in range(50, 1001, 50):
        terms = {"loss_attention": 9 * math.exp(-step / 300) + 1, "loss_hidden": 0.5 * math.exp(-step / 500) + 0.1}
        terms["loss_embedding"] = 0.2 * math.exp(-step / 200) + 0.02
        lines.append(_loss("intermediate", step, terms | {"loss": sum(terms.values())}))
    for step in range(1050, 2001, 50):
        value = 0.6 * math.exp(-(step - 1000) / 500) + 0.1
        lines.append(_loss("prediction", step, {"loss_prediction": value, "loss": value}))
        if step % 250 == 0:
            lines.append(_dev("prediction", step, {"accuracy": score - 0.1 * math.exp(-(step - 1000) / 300)}))
    if not is_finished:
        return _finish(folder, lines, None)
    save_random_classifier(folder / "model", hidden=hidden, layers=2)
    result = _result("task", task, seed, score) | {
        "ablation": ablation,
        "name": name,
        "parameters": 40_000,
        "teacher": str(teacher / "model"),
        "teacher_dev": {"accuracy": 0.9},
        "mapping": [2, 4],
        "data_wait_share": 0.004,
        "test": test,
    }
    return _finish(folder, lines, result)


def write_general_run(folder: Path) -> Path:
    """Write a finished run of `trainer general`, which has no scores."""
    save_random_classifier(folder / "model")
    _write(folder, {"command": "general", "seed": 3, "max_length": 128})
    lines = [_loss("general", step, {"loss_hidden": 1 / step, "loss": 2 / step}) for step in range(50, 501, 50)]
    result = _result("general", "", 3, None) | {"dev": {}, "metric": None, "parameters": 40_000}
    result |= {"task": None, "teacher": "embedded", "teacher_dev": None}
    return _finish(folder, lines, result)


def _write(folder: Path, config: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def _finish(folder: Path, lines: list[dict[str, Any]], result: dict[str, Any] | None) -> Path:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    if result is not None:
        (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return folder


def _loss(stage: str, step: int, terms: dict[str, float]) -> dict[str, Any]:
    return {"stage": stage, "step": step, "samples": step * 32, "seconds": step / 10, "lr": 1e-4} | terms


def _dev(stage: str, step: int, dev: dict[str, float]) -> dict[str, Any]:
    return {"stage": stage, "step": step, "samples": step * 32, "seconds": step / 10, "dev": dev}


def _result(command: str, task: str, seed: int, score: float | None) -> dict[str, Any]:
    return {
        "command": command,
        "task": task,
        "seed": seed,
        "dev": {"accuracy": score},
        "score": score,
        "metric": "accuracy",
        "rows": 872,
        "seconds": 200.0,
        "samples": 64_000,
        "data_wait_share": 0.001,
    }
