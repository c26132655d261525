"""The README.md of a saved student or teacher: what it is, how it was made, its scores, and how to load it.

Written from the facts of the run (`RunResult`). An unknown fact is left out, so the card states only what was measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shared.glue import TASKS
from shared.model_folder import MULTI_LABEL
from trainer.result import RunResult

CARD = "README.md"
MAX_CLASSES_SHOWN = 20


def write_model_card(
    folder: Path,
    result: RunResult,
    recipe: Mapping[str, Any] | None = None,
    *,
    data: str | None = None,
    language: str | None = None,
    license: str | None = None,
) -> None:
    """Write README.md into a model folder, which must hold config.json.

    recipe: option name -> value. data, language, license: what the caller knows about the training data.
    """
    config = _read_json(folder / "config.json")
    parts = [
        _front_matter(result, config, {"language": language, "license": license}),
        f"# {_title(result)}\n\n{_summary(result, config)}",
        _scores(result),
        _sizes(result, config),
        _usage(config, _has_pairs(result, recipe or {})),
        _recipe(result, recipe or {}, data),
        _limits(result),
    ]
    (folder / CARD).write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")


def _front_matter(result: RunResult, config: Mapping[str, Any], extra: Mapping[str, str | None]) -> str:
    """YAML metadata for model hubs."""
    lines = ["---", "library_name: transformers", "pipeline_tag: text-classification"]
    lines += [f"{key}: {json.dumps(value)}" for key, value in extra.items() if value]
    tags = ["bert"] if config.get("model_type") == "bert" else []
    if result.command != "teacher":
        tags += ["tinybert", "knowledge-distillation"]
    lines += ["tags:", *(f"- {tag}" for tag in tags)] if tags else []
    lines += ["metrics:", *(f"- {json.dumps(name)}" for name in result.dev)] if result.dev else []
    return "\n".join([*lines, "---"])


def _title(result: RunResult) -> str:
    what = "Teacher" if result.command == "teacher" else "TinyBERT student"
    return f"{what} for {result.task}" if result.task else what


def _summary(result: RunResult, config: Mapping[str, Any]) -> str:
    size = _shape(config)
    if result.command == "teacher":
        return f"A {size}, fine-tuned for sequence classification."
    text = f"A {size} for sequence classification"
    if result.command == "general":
        source = f" `{result.teacher}`" if result.teacher else ""
        text += f", distilled from the encoder{source} on plain text; its classifier is untrained"
    elif result.teacher:
        text += f", distilled from the teacher `{result.teacher}` in the two stages of TinyBERT (arXiv 1909.10351)"
    elif result.teacher_column:
        text += (
            f", distilled from a teacher's answers in the data (column `{result.teacher_column}`) and from the hidden "
            "states of the embedded encoder, in the two stages of TinyBERT (arXiv 1909.10351)"
        )
    return text + "."


def _scores(result: RunResult) -> str:
    if not result.dev:
        return ""
    count = f" ({result.rows:,} rows)" if result.rows else ""
    teacher = "given answers" if result.teacher_column else "teacher"
    by = result.selected_by or result.metric
    chosen = f". The best checkpoint was selected on it by {by}, so the scores are slightly optimistic" if by else ""
    text = (
        f"## Scores\n\nMeasured on {result.selected_on or 'the dev file'}{count}{chosen}.\n\n"
        f"{_score_table(result.dev, result.teacher_dev or {}, result.baselines or {}, teacher)}"
    )
    if result.test is not None:
        table = _score_table(result.test.scores, result.test.teacher or {}, result.test.baselines, teacher)
        text += f"\n\nOn a test file ({result.test.rows:,} rows), which was not used for selection:\n\n{table}"
        if result.test.agreement is not None:
            text += f"\n\nAgreement with the given answers on these rows: {result.test.agreement:.4f}."
    if result.baselines:
        text += "\n\n`majority` always predicts the largest class, `chance` a random one; neither reads the text."
        if "all" in result.baselines:
            text += (
                " A text can have several labels: `majority` decides on each separately, `all` predicts every label."
            )
    return text


def _score_table(
    scores: Mapping[str, float],
    theirs: Mapping[str, float],
    baselines: Mapping[str, Mapping[str, float]],
    teacher: str,
) -> str:
    header = ["metric", "this model", *([teacher, "retained"] if theirs else []), *baselines]
    rows = []
    for name, value in scores.items():
        row = [name, f"{value:.4f}"]
        if theirs:
            other = theirs.get(name)
            row += [f"{other:.4f}", f"{value / other:.1%}" if other > 0 else "–"] if other is not None else ["–", "–"]
        row += [f"{one[name]:.4f}" if name in one else "–" for one in baselines.values()]
        rows.append(row)
    return _table(header, rows)


def _sizes(result: RunResult, config: Mapping[str, Any]) -> str:
    rows = [["architecture", _shape(config)]]
    if result.parameters:
        other = result.teacher_parameters
        ratio = f" ({other / result.parameters:.1f} times fewer than its teacher)" if other else ""
        rows.append(["parameters", f"{result.parameters:,}{ratio}"])
    labels = config.get("id2label") or {}
    if config.get("problem_type") == "regression" or len(labels) == 1:
        rows.append(["output", "one number (regression)"])
    elif labels:
        names = [str(name) for name in labels.values()]
        more = f" and {len(names) - MAX_CLASSES_SHOWN} more" if len(names) > MAX_CLASSES_SHOWN else ""
        is_several = config.get("problem_type") == MULTI_LABEL
        rows.append(
            ["labels (any number per text)" if is_several else "classes", ", ".join(names[:MAX_CLASSES_SHOWN]) + more]
        )
    return f"## Size\n\n{_table(['', ''], rows)}"


def _has_pairs(result: RunResult, recipe: Mapping[str, Any]) -> bool:
    columns = recipe.get("text_column") or (TASKS[result.task].text_columns if result.task in TASKS else ())
    return len(columns) == 2


def _usage(config: Mapping[str, Any], has_pairs: bool) -> str:
    texts = '"Is it a good film?", "It is gripping and honest."' if has_pairs else '"a gripping and honest film"'
    is_regression = config.get("problem_type") == "regression" or len(config.get("id2label") or {}) == 1
    answer = "logits.item()" if is_regression else "model.config.id2label[int(logits.argmax(-1))]"
    if config.get("problem_type") == MULTI_LABEL:
        answer = "[model.config.id2label[int(index)] for index in (logits[0] > 0).nonzero()]  # the predicted labels"
    return f"""## Use

```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = "."  # this folder
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
logits = model(**tokenizer({texts}, return_tensors="pt")).logits
print({answer})
```

To export it as one ONNX file: `python -m trainer export --model FOLDER --format onnx --output model.onnx`."""


def _recipe(result: RunResult, recipe: Mapping[str, Any], data: str | None) -> str:
    known: Sequence[tuple[str, Any]] = (
        ("command", result.command),
        ("name", result.name),
        ("ablation", result.ablation),
        ("g(m)", result.mapping),
        ("seed", result.seed),
        ("samples seen", result.samples or None),
        ("steps", result.steps or None),
        ("seconds", result.seconds or None),
        ("data", data),
    )
    rows = [[label, _plain(value)] for label, value in known if value not in (None, "", ())]
    facts = result.to_json()
    for key, value in recipe.items():
        if value not in (None, "", [], ()) and key not in facts:
            rows.append([f"--{key.replace('_', '-')}", _plain(value)])
    return f"## How it was made\n\n{_table(['', ''], rows)}"


def _limits(result: RunResult) -> str:
    parts = ["It copies its teacher, including the teacher's mistakes and biases."] if result.command == "task" else []
    if result.dev:
        parts.append("It was scored only on the data above: test it on your own data before relying on it.")
    parts.append("Texts longer than the model's limit must be truncated by the caller (`truncation=True`).")
    return f"## Limits\n\n{' '.join(parts)}"


def _shape(config: Mapping[str, Any]) -> str:
    layers, hidden = config.get("num_hidden_layers"), config.get("hidden_size")
    if layers is None or hidden is None:
        return str(config.get("model_type") or "transformer")
    heads, width = config.get("num_attention_heads"), config.get("intermediate_size")
    kind = str(config.get("model_type")).upper()
    return f"{kind} with {layers} layers × {hidden} ({heads} heads, FFN {width})"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(str(one) for one in value)
    if isinstance(value, float):
        return f"{value:,.6g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _read_json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value
