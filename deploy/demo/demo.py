"""`make demo`: the whole pipeline on real film-review sentences with the embedded models, 7 to 30 minutes on 2 cores.

It fine-tunes a teacher, then runs the augmentation job and the student's training at the same time: the trainer reads
the shards while the job writes them. A report compares the student with its teacher. The commands are printed, so you
can run each of them yourself. A second run reuses everything that is finished.
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
        return run_demo(options.output, options.rows)
    except BrokenPipeError:
        # The reader of our output has closed the pipe (`| head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ExpectedError as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return error.exit_code


def run_demo(output: Path, rows: int) -> int:
    """Run teacher, job and student, then the report; returns the first exit code that is not 0."""
    train, dev = (str(path) for path in prepare_reviews(output / "data"))
    augmented, teacher, student = (str(output / name) for name in (f"augmented-{rows}", "teacher", f"student-{rows}"))
    say("1. Teacher: fine-tune the embedded 6-layer encoder to tell positive from negative film reviews.")
    code = run(
        "trainer", "teacher", "--train", train, "--dev", dev, *COLUMNS, "--output", teacher, "--epochs", "1",
        "--name", "teacher",
    )  # fmt: skip
    if code:
        return code
    say(f"2. Augmentation: start the job ({rows} sentences; log: {augmented}.log), and at the same time ...")
    job_options = [
        "run", "--input", train, *COLUMNS, "--output", augmented, "--limit", str(rows), "--shard-rows", "100",
    ]  # fmt: skip
    with Path(f"{augmented}.log").open("ab") as log:
        job = start("augment_service", *job_options, log=log)
    say("   ... train a student on its shards as they appear: first on the teacher's layers, then on its predictions.")
    code = 1
    try:
        code = run(
            "trainer", "task", "--augmented", augmented, "--teacher", f"{teacher}/model", "--student", STUDENT,
            "--dev", dev, *COLUMNS, "--output", student, "--epochs", "1", "--lr", "2e-3", "--prediction-epochs", "2",
            "--prediction-lr", "2e-3", "--dropout", "0", "--window-shards", "2", "--follow-timeout", "300",
            "--name", "student",
        )  # fmt: skip
    finally:
        job_code = job.wait() if job.poll() is not None or code == 0 else stop(job)
    if job_code:
        print(Path(f"{augmented}.log").read_text(encoding="utf-8").strip().splitlines()[-1], file=sys.stderr)
        return job_code
    if code:
        return code
    show_samples(augmented)
    say("\n3. Report: student and teacher compared, timed in alternating turns.")
    report = str(output / "report.html")
    code = run("trainer", "report", "--runs", teacher, student, "--output", report)
    print(f"\nthe report         {report}")
    print(f"the student        {student}/model  (transformers: AutoModelForSequenceClassification.from_pretrained)")
    print(f"the shards         datasets.load_dataset('arrow', data_files='{augmented}/shards/*.arrow')")
    print("check every byte   python -m augment_service verify " + shlex.quote(augmented))
    return code


def say(text: str) -> None:
    """Print a headline, in bold on a terminal."""
    bold, plain = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() else ("", "")
    print(f"{bold}{text}{plain}", flush=True)


def run(program: str, *arguments: str) -> int:
    """Print a command, run it to completion and return its exit code."""
    return start(program, *arguments).wait()


def start(program: str, *arguments: str, log: Any = None) -> subprocess.Popen[bytes]:
    """Print a command and start it."""
    print(f"$ python -m {program} {shlex.join(arguments)}", flush=True)
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    command: Sequence[str] = [sys.executable, "-m", program, *arguments]
    return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def stop(job: subprocess.Popen[bytes]) -> int:
    """Stop the job; what is committed is kept. Returns 0, because the student's error is the one to report."""
    job.terminate()
    job.wait()
    return 0


def show_samples(output: str) -> None:
    """Print a few source texts of the first shard with their first samples, replacements highlighted."""
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
    """text_a with each replacement underlined on a terminal, in [brackets] elsewhere."""
    before, after = ("\x1b[4;36m", "\x1b[0m") if sys.stdout.isatty() else ("[", "]")
    parts, last = [], 0
    for one in row["replaced"]:
        parts += [row["text_a"][last : one["start"]], before, row["text_a"][one["start"] : one["end"]], after]
        last = one["end"]
    return "".join([*parts, row["text_a"][last:]])


if __name__ == "__main__":
    sys.exit(main())
