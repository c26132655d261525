"""`trainer distill` with its defaults alone on data sets of several kinds, as plain CSV files: one table.

    python benchmarks/defaults.py --glue GLUE --corpus CORPUS --output out/defaults

makes a CSV of each data set (GLUE's train.tsv; its dev.tsv is the test file), runs `trainer distill` on one after the
other with no options except the columns, and prints a table of the finished runs. `sources` classifies passages by
their file in CORPUS (plain text, one passage per line, .xz). With --seeds 0 1 2, the later seeds reuse the first seed's
teacher but draw their own samples, order and new weights; the table has the mean and the standard deviation. GLUE's own
metrics (Matthews correlation for CoLA, F1 for MRPC) are computed by `trainer evaluate`. If QNLI lacks its large
train.tsv, 1,500 rows of dev.tsv are the test set. A second call resumes where the first stopped.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import lzma
import math
import random
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PASSAGES, LONGEST = 600, 300
"""Passages per corpus file, and maximum characters of each."""

TEST_ROWS = 1500
"""Rows of a GLUE dev file held out for testing, for a task without its train file."""
OWN_METRICS = {"CoLA": ("matthews",), "MRPC": ("f1",)}

Row = Sequence[str]
Scores = dict[str, float]


@dataclass(frozen=True)
class Task:
    """A GLUE task's columns by position, and the options that name them."""

    texts: tuple[int, ...]
    label: int
    header: bool = True
    options: tuple[str, ...] = ()


GLUE = {
    "CoLA": Task((3,), 1, header=False),
    "SST-2": Task((0,), 1),
    "MRPC": Task((3, 4), 0),
    "STS-B": Task((7, 8), 9, options=("--regression",)),
    "WNLI": Task((1, 2), 3),
    "QNLI": Task((1, 2), 3),
}
SOURCES = "sources"


def glue_rows(path: Path, task: Task) -> Iterator[Row]:
    """Texts and label of each row of a GLUE file."""
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    for line in lines[1 if task.header else 0 :]:
        if line:
            cells = line.split("\t")
            yield [*(cells[column] for column in task.texts), cells[task.label]]


def source_rows(corpus: Path) -> tuple[list[Row], list[Row]]:
    """Passages labelled with their file name: rows for training, and a sixth as many for testing."""
    rows: list[Row] = []
    for path in sorted(corpus.glob("*.txt.xz")):
        with lzma.open(path, "rt", encoding="utf-8") as file:
            lines = file.read().splitlines()
        chosen = random.Random(0).sample(lines, PASSAGES)
        rows += [(line[:LONGEST].rsplit(" ", 1)[0], path.name.removesuffix(".txt.xz")) for line in chosen]
    random.Random(1).shuffle(rows)
    num_test = len(rows) // 6
    return rows[num_test:], rows[:num_test]


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write a CSV with a header, as a spreadsheet would."""
    texts = ["text"] if len(rows[0]) == 2 else ["first", "second"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*texts, "label"])
        writer.writerows(rows)


def prepare(name: str, args: argparse.Namespace, folder: Path) -> list[str]:
    """Write the data set's files; returns the options of `trainer distill`."""
    folder.mkdir(parents=True, exist_ok=True)
    data, test = folder / "data.csv", folder / "test.csv"
    if name == SOURCES:
        train_rows, test_rows = source_rows(args.corpus)
        options: Sequence[str] = ()
    else:
        task = GLUE[name]
        options = task.options
        train, dev = (args.glue / name / f"{part}.tsv" for part in ("train", "dev"))
        train_rows = list(glue_rows(train if train.is_file() else dev, task))
        test_rows = list(glue_rows(dev, task)) if train.is_file() else []
        if not test_rows:
            random.Random(7).shuffle(train_rows)
            train_rows, test_rows = train_rows[TEST_ROWS:], train_rows[:TEST_ROWS]
    write_csv(data, train_rows)
    write_csv(test, test_rows)
    columns = ["first", "second"] if len(train_rows[0]) == 3 else ["text"]
    columns = ["--text-column", *columns, "--label-column", "label"]
    return ["--data", str(data), "--test", str(test), *columns, *options]


def run_folder(args: argparse.Namespace, name: str, seed: int) -> Path:
    """Output folder of a distillation; the first seed's contains the teacher of all seeds."""
    folder: Path = args.output / name / ("run" if seed == args.seeds[0] else f"run-{seed}")
    return folder


def own_scores(name: str, args: argparse.Namespace, model: Path, stored: Path) -> tuple[Scores, Scores]:
    """GLUE's own metrics of a model on the task's dev file, cached in `stored`, and the best trivial baseline's."""
    if name not in OWN_METRICS:
        return {}, {}
    if not stored.is_file():
        command = [sys.executable, "-m", "trainer", "evaluate", "--json", "--task", name, "--model", str(model)]
        command += ["--data", str(args.glue / name / "dev.tsv")]
        stored.write_text(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    found = json.loads(stored.read_text(encoding="utf-8"))
    own = OWN_METRICS[name]
    return {metric: found["metrics"][metric] for metric in own}, best_of(found["baselines"], own)


def best_of(baselines: dict[str, Scores], metrics: Iterable[str]) -> Scores:
    """For each metric, the best score of the baselines that ignore the text."""
    return {metric: max((one.get(metric, 0.0) for one in baselines.values()), default=0.0) for metric in metrics}


def table(args: argparse.Namespace) -> Iterator[str]:
    """A Markdown row per score and data set, over the finished runs."""
    yield "| data | rows | seeds | student and score | teacher | kept | trivial | smaller | faster (32) | minutes |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    for name in args.data:
        runs = [run_folder(args, name, seed) for seed in args.seeds]
        runs = [run for run in runs if (run / "result.json").is_file()]
        if not runs:
            continue
        results = [json.loads((run / "result.json").read_text(encoding="utf-8")) for run in runs]
        first = results[0]
        own = [own_scores(name, args, run / "model", run / "glue.json") for run in runs]
        students = [mine | result["metrics"] for (mine, _), result in zip(own, results, strict=True)]
        theirs, _ = own_scores(name, args, args.output / name / "run" / "teacher", args.output / name / "glue.json")
        trivial = own[0][1] | best_of(first["baselines"], first["metrics"])
        for metric in students[0]:
            scores = [100 * student[metric] for student in students]
            mean, teacher = statistics.mean(scores), 100 * (theirs | first["teacher_metrics"])[metric]
            spread = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
            baseline = 100 * trivial[metric]
            yield (
                f"| {name} | {first['data']['num_train']:,} | {len(runs)} | {metric} {mean:.1f}{spread} "
                f"| {teacher:.1f} | {mean / teacher:.1%} | {baseline:.1f} | {first['smaller']:.1f} x "
                f"| {first['faster'].get('32', math.nan):.1f} x | {sum(first['minutes'].values()):.0f} |"
            )


def main() -> int:
    """Run the benchmark; returns the exit code of the first failed run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glue", type=Path, required=True, help="folder with a folder per GLUE task")
    parser.add_argument("--corpus", type=Path, required=True, help="folder of plain text files, .txt.xz")
    parser.add_argument("--output", type=Path, required=True, help="folder for data and runs")
    parser.add_argument(
        "--data", nargs="+", default=["MRPC", "STS-B", "WNLI", SOURCES, "CoLA"], choices=[*GLUE, SOURCES]
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--threads", type=int, help="CPU threads of each run (default: all cores)")
    parser.add_argument("--budget", help="time for each run (default: none)")
    parser.add_argument("--table", action="store_true", help="only write the table of finished runs")
    args = parser.parse_args()
    for seed, name in itertools.product(args.seeds, () if args.table else args.data):
        command = [sys.executable, "-m", "trainer", "distill", *prepare(name, args, args.output / name)]
        command += ["--output", str(run_folder(args, name, seed)), "--seed", str(seed)]
        if seed != args.seeds[0]:
            command += ["--teacher", str(args.output / name / "run" / "teacher")]
        command += ["--threads", str(args.threads)] if args.threads else []
        command += ["--budget", args.budget] if args.budget else []
        print(f"$ {' '.join(command)}", flush=True)
        if code := subprocess.run(command, cwd=ROOT, check=False).returncode:
            return code
    print("\n".join(table(args)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
