"""`make demo`: the full pipeline on real film-review sentences with the embedded models, 7 to 30 minutes on 2 cores.

It fine-tunes a teacher. Then the augmentation job and the student's training run at the same time: the training reads
the shards that the job writes. A report compares the student with its teacher. The demo prints each command that it
runs; running the demo again reuses its results.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.demo.reviews import prepare_reviews
from shared.errors import ExpectedError
from shared.shards import list_commits, read_shard
from shared.storage.store import open_store

NUM_SHOWN = 4
SAMPLES_SHOWN = 3
STUDENT = "3,84,336,12"
COLUMNS = ["--text-column", "sentence", "--label-column", "label"]


def main() -> int:
    """Run the demo; exit code 0, or 1 with one line on stderr."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/demo"))
    parser.add_argument("--rows", type=int, default=1500, help="Sentences to augment.")
    options = parser.parse_args()
    try:
        return tell_story(options.output, options.rows)
    except BrokenPipeError:
        # The reader of our output closed the pipe (`| head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ExpectedError as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return error.exit_code


def tell_story(output: Path, rows: int) -> int:
    """Teacher, job and student, report; returns the first nonzero exit code."""
    train, dev = (str(path) for path in prepare_reviews(output / "data"))
    augmented, teacher, student = (str(output / name) for name in (f"augmented-{rows}", "teacher", f"student-{rows}"))
    say("1. The teacher: fine-tune the embedded 6-layer encoder to classify the sentiment of a sentence.")
    code = run(
        "trainer",
        *("teacher", "--train", train, "--dev", dev, *COLUMNS, "--output", teacher, "--epochs", "1"),
        *("--name", "teacher"),
    )
    if code:
        return code
    say(f"2. The augmentation job ({rows} sentences; log in {augmented}.log), and at the same time ...")
    job_options = ["run", "--input", train, *COLUMNS, "--output", augmented, "--limit", str(rows)]
    job_options += ["--shard-rows", "100"]
    with Path(f"{augmented}.log").open("ab") as log:
        job = start("augment_service", *job_options, log=log)
    say("   ... a student that trains on the shards as they appear: first on hidden states, then on logits.")
    code = 1
    try:
        code = run(
            "trainer",
            *("task", "--augmented", augmented, "--teacher", f"{teacher}/model", "--student", STUDENT),
            *("--dev", dev, *COLUMNS, "--output", student, "--epochs", "1", "--lr", "2e-3"),
            *("--prediction-epochs", "2", "--prediction-lr", "2e-3", "--dropout", "0", "--window-shards", "2"),
            *("--follow-timeout", "300", "--name", "student"),
        )
    finally:
        job_code = job.wait() if job.poll() is not None or code == 0 else stop(job)
    if job_code:
        print(Path(f"{augmented}.log").read_text(encoding="utf-8").strip().splitlines()[-1], file=sys.stderr)
        return job_code
    if code:
        return code
    show_samples(augmented)
    say("\n3. The report: student compared with teacher, timed alternately.")
    report = str(output / "report.html")
    code = run("trainer", "report", "--runs", teacher, student, "--output", report)
    print(f"\nthe report         {report}")
    print(f"the student        {student}/model  (transformers: AutoModelForSequenceClassification.from_pretrained)")
    print(f"the shards         datasets.load_dataset('arrow', data_files='{augmented}/shards/*.arrow')")
    print("check every byte   python -m augment_service verify " + shlex.quote(augmented))
    return code


def say(text: str) -> None:
    """Print a heading, in bold on a terminal."""
    bold, plain = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() else ("", "")
    print(f"{bold}{text}{plain}", flush=True)


def run(program: str, *arguments: str) -> int:
    """Print and run one of our commands; returns its exit code."""
    return start(program, *arguments).wait()


def start(program: str, *arguments: str, log: Any = None) -> subprocess.Popen[bytes]:
    """Print and start one of our commands."""
    print(f"$ python -m {program} {shlex.join(arguments)}", flush=True)
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    command: Sequence[str] = [sys.executable, "-m", program, *arguments]
    return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def stop(job: subprocess.Popen[bytes]) -> int:
    """Stop the job; committed shards are kept. Returns 0, because another command failed first."""
    job.terminate()
    job.wait()
    return 0


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
