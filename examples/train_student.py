"""From a labelled CSV file to a small student: teacher, augmentation, distillation, predictions.

    .venv/bin/python examples/train_student.py [FOLDER]

About a minute on 2 cores. The settings are tiny so that you can watch the steps; README.md shows real ones. With FOLDER
the result is kept, and running the script again reuses what is finished.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
from pathlib import Path

from trainer import load_student

SUBJECTS = ("film", "story", "cast", "ending", "script", "music", "camera work", "dialogue")
GOOD = ("gripping", "honest", "wonderful", "funny", "beautiful", "clever")
BAD = ("dull", "terrible", "boring", "awful", "clumsy", "annoying")
COLUMNS = ["--text-column", "review", "--label-column", "label"]
# One thread is fastest for models and batches this small, and the loader needs no process of its own.
TINY = [*COLUMNS, "--batch-size", "16", "--evaluations", "1", "--threads", "1", "--loader-workers", "0"]


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        train(Path(sys.argv[1] if len(sys.argv) > 1 else scratch).resolve())


def train(folder: Path) -> None:
    data, teacher, augmented, student = (str(folder / name) for name in ("reviews.csv", "teacher", "aug", "student"))
    folder.mkdir(parents=True, exist_ok=True)
    words = [(word, 1) for word in GOOD] + [(word, 0) for word in BAD]
    lines = [f"the {subject} is {word},{label}" for subject, (word, label) in itertools.product(SUBJECTS, words)]
    Path(data).write_text("\n".join(["review,label", *lines]) + "\n", encoding="utf-8")

    # 1. A teacher: the embedded 6-layer encoder, fine-tuned on the labels. A real run has a separate dev file.
    options = ["--train", data, "--dev", data, "--epochs", "3", "--lr", "1e-3", *TINY]
    run("trainer", "teacher", "--output", teacher, *options)

    # 2. Augmentation: 3 samples per sentence, written as Arrow shards.
    run("augment_service", "run", "--output", augmented, "--input", data, "--n-a", "3", "--shard-rows", "48", *COLUMNS)

    # 3. A student of 2 layers, width 48. Stage one imitates the teacher's attention and hidden states, stage two its
    #    predictions.
    options = ["--augmented", augmented, "--teacher", f"{teacher}/model", "--student", "2,48,96,12", "--dev", data]
    options += ["--dropout", "0", "--epochs", "3", "--lr", "3e-3"]
    options += ["--prediction-epochs", "6", "--prediction-lr", "5e-3"]
    run("trainer", "task", "--output", student, *options, *TINY)

    for prediction in load_student(student).predict(["a wonderful story", "the music is awful"]):
        print(prediction.label, {label: round(value, 2) for label, value in prediction.probabilities.items()})


def run(program: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", program, *arguments], check=True)


if __name__ == "__main__":
    main()
