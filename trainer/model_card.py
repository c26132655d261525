"""The README.md beside a saved student or teacher: what it is, how it came about, what it scores, how to load it.

Written from the facts that a training command has anyway (`result.json`'s keys); a fact that is missing is left out, so
that the card never says what nobody measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CARD = "README.md"


def write_model_card(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write README.md into the model folder.

    facts: any of command, task, name, ablation, seed, dev, metric, score, rows, samples, steps, seconds, parameters,
    teacher, teacher_dev, teacher_parameters, mapping, stages, recipe (option -> value), data, language, license.
    """
    config = _json(folder / "config.json")
    parts = [
        _front_matter(facts, config),
        f"# {_title(facts)}\n\n{_summary(facts, config)}",
        _scores(facts),
        _sizes(facts, config),
        _usage(config),
        _recipe(facts),
        _limits(facts),
    ]
    (folder / CARD).write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")


def _front_matter(facts: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """What model hubs read."""
    lines = ["---", "library_name: transformers", "pipeline_tag: text-classification"]
    lines += [f"{key}: {json.dumps(str(facts[key]))}" for key in ("language", "license") if facts.get(key)]
    tags = ["bert"] if config.get("model_type") == "bert" else []
    if facts.get("command") != "teacher":
        tags += ["tinybert", "knowledge-distillation"]
    lines += ["tags:", *(f"- {tag}" for tag in tags)] if tags else []
    metrics = list(facts.get("dev") or {})
    lines += ["metrics:", *(f"- {json.dumps(name)}" for name in metrics)] if metrics else []
    return "\n".join([*lines, "---"])


def _title(facts: Mapping[str, Any]) -> str:
    what = "Teacher" if facts.get("command") == "teacher" else "TinyBERT student"
    task = str(facts.get("task") or "")
    return f"{what} for {task}" if task else what


def _summary(facts: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    size = _shape(config)
    if facts.get("command") == "teacher":
        return f"A {size}, fine-tuned for sequence classification."
    text = f"A {size} for sequence classification"
    if facts.get("command") == "general":
        source = f" `{facts['teacher']}`" if facts.get("teacher") else ""
        text += f", distilled from the un-tuned encoder{source} on plain text; its classifier has learned nothing yet"
    elif facts.get("teacher"):
        text += f", distilled from the teacher `{facts['teacher']}` by the two stages of TinyBERT (arXiv 1909.10351)"
    return text + "."


def _scores(facts: Mapping[str, Any]) -> str:
    dev = facts.get("dev") or {}
    if not dev:
        return ""
    theirs = facts.get("teacher_dev") or {}
    header = ["metric", "this model", *(["teacher", "kept"] if theirs else [])]
    rows = []
    for name, value in dev.items():
        row = [name, f"{value:.4f}"]
        if theirs:
            other = theirs.get(name)
            row += [f"{other:.4f}", f"{value / other:.1%}" if other > 0 else "–"] if other is not None else ["–", "–"]
        rows.append(row)
    count = f" of {facts['rows']:,} rows" if facts.get("rows") else ""
    chosen = f"; the best checkpoint was chosen there by {facts['metric']}" if facts.get("metric") else ""
    return f"## Scores\n\nOn the dev file{count}{chosen}, which flatters it slightly.\n\n{_table(header, rows)}"


def _sizes(facts: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    rows = [["architecture", _shape(config)]]
    if facts.get("parameters"):
        own = int(facts["parameters"])
        other = facts.get("teacher_parameters")
        rows.append(
            ["parameters", f"{own:,}" + (f" ({other / own:.1f} times fewer than its teacher)" if other else "")]
        )
    labels = config.get("id2label") or {}
    if config.get("problem_type") == "regression" or len(labels) == 1:
        rows.append(["output", "one number (regression)"])
    elif labels:
        names = [str(name) for name in labels.values()]
        shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        rows.append(["classes", shown])
    return f"## Size\n\n{_table(['', ''], rows)}"


def _usage(config: Mapping[str, Any]) -> str:
    is_regression = config.get("problem_type") == "regression" or len(config.get("id2label") or {}) == 1
    answer = "logits.item()" if is_regression else "model.config.id2label[int(logits.argmax(-1))]"
    return f"""## Use

```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = "."  # this folder
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
logits = model(**tokenizer("a gripping and honest film", return_tensors="pt")).logits
print({answer})
```

As one ONNX file: `python -m trainer export --model FOLDER --format onnx --output model.onnx`."""


def _recipe(facts: Mapping[str, Any]) -> str:
    known: Sequence[tuple[str, str]] = (
        ("command", "command"), ("name", "name"), ("ablation", "ablation"), ("stages", "stages"), ("mapping", "g(m)"),
        ("seed", "seed"), ("samples", "samples seen"), ("steps", "steps"), ("seconds", "seconds"), ("data", "data"),
    )  # fmt: skip
    rows = [[label, _plain(facts[key])] for key, label in known if facts.get(key) not in (None, "", [], ())]
    for key, value in (facts.get("recipe") or {}).items():
        if value not in (None, "", [], ()) and key not in facts:
            rows.append([f"--{key.replace('_', '-')}", _plain(value)])
    return f"## How it was made\n\n{_table(['', ''], rows)}" if rows else ""


def _limits(facts: Mapping[str, Any]) -> str:
    is_student = facts.get("command") == "task" and facts.get("teacher")
    parts = ["It copies its teacher, mistakes and biases included."] if is_student else []
    if facts.get("dev"):
        parts.append("It was scored on the data above and on nothing else: try it on your own before you rely on it.")
    parts.append("Longer texts than the model takes must be cut by the caller (`truncation=True`).")
    return f"## Limits\n\n{' '.join(parts)}"


def _shape(config: Mapping[str, Any]) -> str:
    layers, hidden = config.get("num_hidden_layers"), config.get("hidden_size")
    if layers is None or hidden is None:
        return str(config.get("model_type") or "transformer")
    heads, width = config.get("num_attention_heads"), config.get("intermediate_size")
    kind = str(config.get("model_type")).upper()
    return f"{kind} of {layers} layers × {hidden} ({heads} heads, FFN {width})"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(str(one) for one in value)
    if isinstance(value, float):
        return f"{value:,.6g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value
