"""`trainer distill` with its defaults alone on data sets of several kinds, as plain CSV files: one table.

    python benchmarks/defaults.py --glue GLUE --corpus CORPUS --output out/defaults

makes a CSV of each data set (GLUE's train.tsv; its dev.tsv is the test file), runs `trainer distill` on one after the
other without any option but the columns, and prints a table of the finished ones. `sources` has a class for each file
of CORPUS (plain text, one passage a line, .xz): which of them is a passage from? A second call goes on where the first
one stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
import lzma
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PASSAGES, LONGEST = 600, 300
"""Passages from each file of the corpus, and the characters that are kept of each."""

Row = Sequence[str]


@dataclass(frozen=True)
class Task:
    """A GLUE task's columns by position, and the options that say what they are."""

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
    """Passages with the name of their file as the label: rows to train on, and a sixth as many to test on."""
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
    """A CSV with a header, as a spreadsheet writes it."""
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
        # QNLI's train.tsv is often left out for its size: then a tenth of the dev rows is split off as the test.
        train_rows = list(glue_rows(train if train.is_file() else dev, task))
        test_rows = list(glue_rows(dev, task)) if train.is_file() else []
    write_csv(data, train_rows)
    columns = ["first", "second"] if len(train_rows[0]) == 3 else ["text"]
    command = ["--data", str(data), "--text-column", *columns, "--label-column", "label", *options]
    if test_rows:
        write_csv(test, test_rows)
        command += ["--test", str(test)]
    return [*command, "--output", str(folder / "run")]


def table(names: Sequence[str], output: Path) -> Iterator[str]:
    """A Markdown row for each score of each finished run."""
    yield "| data | rows | student and score | teacher | kept | trivial | smaller | faster, batch 32 | minutes |"
    yield "|---|---:|---|---:|---:|---:|---:|---:|---:|"
    for name in names:
        path = output / name / "run" / "result.json"
        if not path.is_file():
            continue
        result = json.loads(path.read_text(encoding="utf-8"))
        for metric, score in result["metrics"].items():
            baseline = max((one.get(metric, 0.0) for one in result["baselines"].values()), default=0.0)
            yield (
                f"| {name} | {result['data']['num_train']:,} | {metric} {score:.3f} "
                f"| {result['teacher_metrics'].get(metric, float('nan')):.3f} "
                f"| {result['kept'].get(metric, float('nan')):.1%} | {baseline:.3f} | {result['smaller']:.1f} x "
                f"| {result['faster'].get('32', float('nan')):.1f} x | {sum(result['minutes'].values()):.0f} |"
            )


def main() -> int:
    """Run the benchmark; the exit code is that of the first run that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glue", type=Path, required=True, help="folder with a folder per GLUE task")
    parser.add_argument("--corpus", type=Path, required=True, help="folder of plain text files, .txt.xz")
    parser.add_argument("--output", type=Path, required=True, help="folder for data and runs")
    parser.add_argument(
        "--data", nargs="+", default=["MRPC", "STS-B", "WNLI", SOURCES, "CoLA"], choices=[*GLUE, SOURCES]
    )
    parser.add_argument("--budget", help="time for each run (default: none)")
    args = parser.parse_args()
    for name in args.data:
        options = prepare(name, args, args.output / name)
        command = [sys.executable, "-m", "trainer", "distill", *options]
        if args.budget:
            command += ["--budget", args.budget]
        print(f"$ {' '.join(command)}", flush=True)
        if code := subprocess.run(command, cwd=ROOT, check=False).returncode:
            return code
    print("\n".join(table(args.data, args.output)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
