"""Students for GLUE tasks from the embedded encoder: a long run, and the paper's ablation over three seeds.

    python benchmarks/students.py --glue GLUE --corpus FILES... --runs out/students --tasks SST-2 CoLA MRPC

runs, for each task, `trainer teacher`, `augment_service run --emit candidates`, `trainer annotate` and `trainer task`
for every variant and seed, `--jobs` at a time with one thread each, and writes the table to stdout (finished runs
only). Every stage resumes from its folder, so an interrupted benchmark continues where it stopped; `trainer report`
reads the same folders. Hours are wall-clock time of runs that share one machine.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIZE = "3,84,336,12"
VARIANTS = ("full", "no-general", "no-intermediate", "no-augmentation", "random-embeddings")


@dataclass(frozen=True)
class Recipe:
    """Budget of a task's runs: samples per row, epochs of both stages, and options of the teacher."""

    n_a: int
    epochs: float
    prediction_epochs: float
    long_n_a: int
    long_epochs: float
    long_prediction_epochs: float
    teacher: tuple[str, ...]
    seeds: tuple[int, ...] = (0, 1, 2)


RECIPES = {
    "SST-2": Recipe(2, 1, 2, 8, 2, 4, ("--epochs", "2", "--batch-size", "64", "--lr", "6e-5")),
    "CoLA": Recipe(20, 1, 2, 20, 4, 6, ("--epochs", "4", "--lr", "5e-5")),
    "MRPC": Recipe(20, 1, 2, 20, 4, 6, ("--epochs", "5", "--lr", "5e-5")),
}


@dataclass(frozen=True)
class Bench:
    """Folders of the benchmark's inputs and runs."""

    glue: Path
    runs: Path
    corpus: Sequence[str]
    corpus_weights: Sequence[str]

    def candidates(self, task: str) -> Path:
        """Output folder of the task's augmentation."""
        return self.runs / f"cand-{task}"

    def teacher(self, task: str) -> Path:
        """Folder of the task's teacher run."""
        return self.runs / f"teacher-{task}"

    @property
    def general(self) -> Path:
        """Folder of the general distillation."""
        return self.runs / "general-3x84"

    def sources(self, tasks: Sequence[str]) -> list[list[str]]:
        """Commands that produce the students' inputs, except finished ones."""
        commands = [
            _trainer(
                "general",
                *("--loader-workers", "0", "--corpus", *self.corpus),
                *(["--corpus-weights", *self.corpus_weights] if self.corpus_weights else []),
                *("--student", SIZE, "--dropout", "0", "--lr", "2e-3", "--batch-size", "32", "--max-length", "128"),
                *("--epochs", "1", "--max-tokens", "8000000", "--warm-up-share", "0.05"),
                *("--output", str(self.general)),
            )
        ]
        for task in tasks:
            train, dev = (str(self.glue / task / f"{part}.tsv") for part in ("train", "dev"))
            commands += [
                _trainer(
                    "teacher",
                    *("--task", task, "--train", train, "--dev", dev, *RECIPES[task].teacher),
                    *("--output", str(self.teacher(task))),
                ),
                [
                    *("-m", "augment_service", "run", "--task", task, "--input", train, "--emit", "candidates"),
                    *("--glove", "embedded", "--mlm", "embedded", "--output", str(self.candidates(task))),
                ],
            ]
        return [command for command in commands if not _is_done(command)]

    def annotate(self, task: str) -> list[str]:
        """Command that stores the teacher's logits alongside the candidates."""
        recipe = RECIPES[task]
        return _trainer(
            "annotate",
            *("--augmented", str(self.candidates(task)), "--teacher", str(self.teacher(task) / "model")),
            *("--n-a", str(max(recipe.n_a, recipe.long_n_a))),
        )

    def student(self, task: str, variant: str, seed: int) -> list[str]:
        """Command of one student."""
        recipe = RECIPES[task]
        n_a, epochs, prediction_epochs = recipe.n_a, recipe.epochs, recipe.prediction_epochs
        if variant == "long":
            n_a, epochs, prediction_epochs = recipe.long_n_a, recipe.long_epochs, recipe.long_prediction_epochs
        if variant == "no-augmentation":  # the same number of samples, all of them source rows
            n_a, epochs, prediction_epochs = 0, epochs * (1 + n_a), prediction_epochs * (1 + n_a)
        size_alone = variant in ("no-general", "random-embeddings")
        command = _trainer(
            "task",
            *("--loader-workers", "0", "--task", task, "--augmented", str(self.candidates(task))),
            *("--teacher", str(self.teacher(task) / "model"), "--dev", str(self.glue / task / "dev.tsv")),
            *("--student", SIZE if size_alone else str(self.general / "model"), "--annotated"),
            *("--n-a", str(n_a), "--epochs", str(epochs), "--prediction-epochs", str(prediction_epochs)),
            *("--batch-size", "64", "--lr", "1e-3", "--prediction-lr", "5e-4", "--dropout", "0", "--seed", str(seed)),
            *("--window-shards", "4", "--evaluations", str(max(1, round(16 / prediction_epochs)))),
            *("--ablation", "full" if variant == "long" else variant),
            *("--name", "long" if variant == "long" else ""),
            *("--output", str(self.runs / f"{task}-{variant}-{seed}")),
        )
        if variant == "no-intermediate":
            command += ["--stages", "prediction"]
        if variant == "random-embeddings":
            command += ["--embedding-init", "random"]
        return command


def _trainer(name: str, *options: str) -> list[str]:
    return ["-m", "trainer", name, "--threads", "1", *options]


def _output(command: Sequence[str]) -> Path:
    return Path(command[command.index("--output") + 1])


def _is_done(command: Sequence[str]) -> bool:
    return "--output" in command and any((_output(command) / name).exists() for name in ("result.json", "_SUCCESS"))


def run(command: Sequence[str], logs: Path) -> int:
    """Run one command with its log in a file; returns its exit code."""
    name = _output(command).name if "--output" in command else f"{command[2]}-{threading.get_ident()}"
    environment = dict(os.environ) | {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0"}
    with (logs / f"{name}.log").open("a") as log:
        code = subprocess.call([sys.executable, *command], stdout=log, stderr=log, env=environment)
    print(f"{name}: exit {code}", file=sys.stderr)
    return code


def table(runs: Path, tasks: Sequence[str]) -> str:
    """Markdown of the finished runs: scores of the students by variant, and of their teachers."""
    lines = [
        "| task | student | seeds | score | teacher | kept | samples | hours each |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for task in tasks:
        for variant in ("long", *VARIANTS):
            paths = sorted(runs.glob(f"{task}-{variant}-*/result.json"))
            found: list[dict[str, Any]] = [json.loads(path.read_text()) for path in paths]
            if not found:
                continue
            metric = found[0]["metric"]
            scores = [100 * one["dev"][metric] for one in found]
            teacher = 100 * found[0]["teacher_dev"][metric]
            spread = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
            mean = statistics.mean(scores)
            samples = statistics.mean(one["samples"] for one in found)
            hours = statistics.mean(one["seconds"] for one in found) / 3600
            lines.append(
                f"| {task} | {variant} | {len(found)} | {mean:.1f}{spread} ({metric}) | {teacher:.1f} | "
                f"{100 * mean / teacher:.1f}% | {samples:,.0f} | {hours:.2f} |"
            )
    return "\n".join(lines)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glue", type=Path, required=True, help="folder of GLUE tasks: GLUE/SST-2/train.tsv ...")
    parser.add_argument("--corpus", nargs="+", default=[], help="text for the general distillation")
    parser.add_argument("--corpus-weights", nargs="+", default=[])
    parser.add_argument("--runs", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--tasks", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--variants", nargs="+", default=["long", *VARIANTS], choices=["long", *VARIANTS])
    parser.add_argument("--seeds", nargs="+", type=int, help="default: the recipe's")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--table", action="store_true", help="only write the table of finished runs")
    options = parser.parse_args()
    runs: Path = options.runs.absolute()
    bench = Bench(options.glue.absolute(), runs, options.corpus, options.corpus_weights)
    failed = 0
    if not options.table:
        logs = runs / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        failed += sum(run(command, logs) != 0 for command in bench.sources(options.tasks))
        students = [
            bench.student(task, variant, seed)
            for task in options.tasks
            for seed in options.seeds or RECIPES[task].seeds
            for variant in options.variants
            if variant != "long" or seed == 0
        ]
        commands = [bench.annotate(task) for task in options.tasks]
        commands += [command for command in students if not _is_done(command)]
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            failed += sum(code != 0 for code in pool.map(lambda command: run(command, logs), commands))
    print(table(runs, options.tasks))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
