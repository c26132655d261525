"""`make demo`: `trainer distill` on real film-review sentences with the embedded models, within 8 minutes on 2 cores.

It trains a student on 3,000 sentences, scores it on 2,000 others, shows augmented samples of some sentences, and has
the student classify three new ones. Every command is printed; running the demo again reuses its results.
"""

from __future__ import annotations

import argparse
import csv
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.demo.reviews import prepare_reviews, sample_reviews
from shared.errors import ExpectedError
from shared.shards import list_commits, read_shard
from shared.storage.store import open_store

USAGE = 2
SLOW_BUDGET = "20m"
TEST_ROWS = 2000
"""A score on fewer rows would be too noisy: with 300, chance alone moves it by more than two points."""
NUM_SHOWN = 4
SAMPLES_SHOWN = 3
NEW_SENTENCES = (
    "a warm, funny and honest film with a wonderful cast",
    "two hours of noise, and not one idea",
    "the plot is thin, but the ending makes up for it",
)


def main() -> int:
    """Run the demo; returns 0 or the exit code of the failed command, with one line on stderr."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/demo"))
    parser.add_argument("--rows", type=int, default=3000, help="Number of sentences to use, out of 10,605.")
    parser.add_argument("--budget", default="7m", help="Time limit for everything after setup.")
    options = parser.parse_args()
    try:
        return tell_story(options.output, options.budget, options.rows)
    except BrokenPipeError:
        # The reader of stdout closed the pipe (`| head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except ExpectedError as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return error.exit_code


def tell_story(output: Path, budget: str, rows: int) -> int:
    """Distil, show samples, classify; returns the first nonzero exit code."""
    everything = prepare_reviews(output / "all-reviews.csv")
    reviews = sample_reviews(everything, output / "reviews.csv", rows)
    others = sample_reviews(everything, output / "test-reviews.csv", TEST_ROWS, first=rows)
    student = output / "student"
    say("1. From a file of labelled sentences to a small model, in one command.")
    columns = ["--text-column", "sentence"]
    distill = [
        "distill",
        "--data",
        str(reviews),
        "--test",
        str(others),
        *columns,
        "--label-column",
        "label",
        "--output",
        str(student),
    ]
    code = run(*distill, "--budget", budget)
    if code == USAGE and not student.exists():
        say(f"This machine is slow or busy: trying again with a budget of {SLOW_BUDGET}.")
        code = run(*distill, "--budget", SLOW_BUDGET)
    if code:
        return code
    say("\n2. Some sentences and their augmented samples.")
    show_samples(str(student / "augmented"))
    say("\n3. The student classifies three sentences that it has not seen before.")
    questions, answers = output / "new.csv", output / "answers.csv"
    with questions.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("sentence",), *((text,) for text in NEW_SENTENCES)])
    code = run(
        *("predict", "--model", str(student / "model"), "--data", str(questions), *columns),
        *("--output", str(answers), "--log-level", "warning"),
    )
    if code:
        return code
    with answers.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            label = row["predicted_label"]
            print(f"  {label} {float(row[f'probability_{label}']):.0%}  {row['sentence']}")
    print(f"\nthe report         {student}/report.html")
    print(f"the student        {student}/model  (transformers: AutoModelForSequenceClassification.from_pretrained)")
    print(f"the shards         datasets.load_dataset('arrow', data_files='{student}/augmented/shards/*.arrow')")
    print("check every byte   python -m augment_service verify " + shlex.quote(f"{student}/augmented"))
    return 0


def say(text: str) -> None:
    """Print a heading, in bold on a terminal."""
    bold, plain = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() else ("", "")
    print(f"{bold}{text}{plain}", flush=True)


def run(*arguments: str) -> int:
    """Print and run one of the trainer's commands; returns its exit code."""
    print(f"$ python -m trainer {shlex.join(arguments)}", flush=True)
    process = subprocess.Popen([sys.executable, "-m", "trainer", *arguments], env=os.environ | {"HF_HUB_OFFLINE": "1"})
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        return process.wait()


def show_samples(output: str) -> None:
    """Print a few source texts of the first shard, each with some samples whose replacements are marked."""
    store = open_store(output)
    table = read_shard(store, list_commits(store)[0])
    rows = table.slice(0, 400).to_pylist()
    sources = [row for row in rows if row["n"] == 0 and 40 <= len(row["text_a"]) <= 95][:NUM_SHOWN]
    for source in sources:
        print(f"\n  {source['text_a']}")
        own = [row for row in rows if row["source_id"] == source["source_id"] and row["n"] > 0]
        for row in own[:SAMPLES_SHOWN]:
            print(f"    -> {marked(row)}")


def marked(row: dict[str, Any]) -> str:
    """text_a with each replacement underlined on a terminal, otherwise in [brackets]."""
    before, after = ("\x1b[4;36m", "\x1b[0m") if sys.stdout.isatty() else ("[", "]")
    parts, last = [], 0
    for one in row["replaced"]:
        parts += [row["text_a"][last : one["start"]], before, row["text_a"][one["start"] : one["end"]], after]
        last = one["end"]
    return "".join([*parts, row["text_a"][last:]])


if __name__ == "__main__":
    sys.exit(main())
