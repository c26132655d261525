"""Cost and quality of the three contexts: speed, candidate overlap, and classifier agreement.

A classifier is fine-tuned for one short epoch on part of SST-2's train.tsv (or given with --classifier). Each context
then augments the same dev sentences, counting the samples that the classifier labels like their source. SST-2 is not
part of this repository: pass the folder with its train.tsv and dev.tsv.

    python benchmarks/contexts.py --glue glue/SST-2
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shared.params import Context

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

CONTEXTS: tuple[Context, ...] = ("single", "pair", "unmasked")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--glue", type=Path, required=True, help="folder with SST-2's train.tsv and dev.tsv")
    parser.add_argument("--classifier", type=Path, help="folder of a fine-tuned classifier (default: train one)")
    parser.add_argument("--train-rows", type=int, default=10_000, help="rows to train the classifier on")
    parser.add_argument("--rows", type=int, default=300, help="dev sentences to augment")
    parser.add_argument("--n-a", type=int, default=10)
    parser.add_argument("--mlm", default="embedded")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=ROOT / "out" / "benchmark")
    options = parser.parse_args()
    classifier = options.classifier or train_classifier(options.glue, options.train_rows, options.work)

    from augment_service.engine.augment import AugmentEngine
    from augment_service.engine.glove import GloveVectors
    from augment_service.engine.masked_lm import MaskedLM
    from benchmarks.augment import cpu_name
    from shared.inputs.rows import SourceRow
    from shared.params import AugmentParams
    from shared.rendering import render_samples

    lines = (options.glue / "dev.tsv").read_text(encoding="utf-8").splitlines()[1:]
    step = max(len(lines) // options.rows, 1)
    labelled = [line.split("\t") for line in lines[::step][: options.rows]]
    rows = [SourceRow(number, text.strip()) for number, (text, _) in enumerate(labelled)]
    answers = classify(classifier, [row.text_a for row in rows])
    accuracy = sum(str(answer) == label for answer, (_, label) in zip(answers, labelled, strict=True)) / len(rows)
    masked_lm = MaskedLM.load(options.mlm, "cpu", "auto", options.threads)
    vectors = GloveVectors.load("embedded")
    sets: dict[str, list[frozenset[str]]] = {}
    table = []
    for context in CONTEXTS:
        engine = AugmentEngine(masked_lm, vectors, AugmentParams(n_a=options.n_a, context=context))
        engine.candidates(rows[:4])
        before = engine.statistics.model_tokens
        began = time.monotonic()
        found, samples = engine.samples(rows)
        seconds = time.monotonic() - began
        sets[context] = [frozenset(site.candidates) for row in found for site in row.sites if site.origin == "mlm"]
        texts = render_samples(found, samples).text_a.to_pylist()
        kept = sum(
            answer == answers[row]
            for answer, row in zip(classify(classifier, texts), samples.row.tolist(), strict=True)
        )
        pairs = list(zip(sets["single"], sets[context], strict=True))
        overlap = sum(len(a & b) for a, b in pairs) / max(sum(len(a) for a, _ in pairs), 1)
        changed = len(samples.site) / max(len(samples), 1)
        tokens = (engine.statistics.model_tokens - before) / len(rows)
        table.append(
            f"| `{context}` | {len(rows) / seconds:,.0f} | {tokens:,.0f} | {overlap:.0%} | {changed:.2f} "
            f"| {kept / len(samples):.1%} |"
        )
        print(table[-1], file=sys.stderr, flush=True)
    command = "python benchmarks/contexts.py " + " ".join(sys.argv[1:])
    print(f"## Contexts, {date.today()}, {cpu_name()}\n`{command}`\n")
    print(
        f"Masked LM: {options.mlm}, {masked_lm.dtype}. {len(rows)} SST-2 dev sentences, N_a {options.n_a}, K 15, "
        f"P_t 0.4. The classifier labels {accuracy:.1%} of the sources correctly.\n"
    )
    print(
        "| context | sentences/s | tokens per sentence | candidates in common with `single` | words replaced per "
        "sample | samples that keep their label |\n|---|---|---|---|---|---|\n" + "\n".join(table)
    )


def train_classifier(glue: Path, num_rows: int, work: Path) -> Path:
    """Fine-tune the embedded encoder with `trainer teacher`: one epoch over every n-th row."""
    folder = work / f"classifier-{num_rows}"
    folder.mkdir(parents=True, exist_ok=True)
    header, *lines = (glue / "train.tsv").read_text(encoding="utf-8").splitlines()
    part = folder / "train.tsv"
    chosen = lines[:: max(len(lines) // num_rows, 1)][:num_rows]
    part.write_text("\n".join([header, *chosen]) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "trainer", "teacher", "--task", "SST-2", "--train", str(part)]
    command += ["--dev", str(glue / "dev.tsv"), "--epochs", "1", "--lr", "1e-4", "--evaluations", "1"]
    command += ["--output", str(folder / "model")]
    finished = subprocess.run(command, cwd=ROOT, env=os.environ | {"HF_HUB_OFFLINE": "1"}, check=False)
    if finished.returncode != 0:
        sys.exit("the classifier was not trained")
    configs = [path.parent for path in (folder / "model").rglob("config.json")]
    return min(configs, key=lambda path: len(path.parts))


def classify(folder: Path, texts: list[str]) -> list[Any]:
    """The classifier's label of each text."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    answers = [0] * len(texts)
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    with torch.inference_mode():
        for start in range(0, len(order), 64):
            part = order[start : start + 64]
            batch = tokenizer([texts[index] for index in part], return_tensors="pt", padding=True, truncation=True)
            for index, answer in zip(part, model(**batch).logits.argmax(1).tolist(), strict=True):
                answers[index] = answer
    names = model.config.id2label
    return [json.loads(name) if (name := str(names[answer])).isdecimal() else answer for answer in answers]


if __name__ == "__main__":
    main()
