"""Labelled files and small models for `trainer distill`."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.command import ROOT
from tests.support.distillation import ADJECTIVES, NOUNS
from tests.support.models import save_random_model, save_random_vectors

QUICK = ("--n-a", "2", "--teacher-epochs", "1", "--epochs", "1", "--prediction-epochs", "1", "--no-estimate")


class Workshop:
    """A folder with a small encoder that is the masked LM, too, word vectors, and labelled files of any shape."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.encoder = save_random_model("bert-uncased", folder / "encoder")
        self.vectors = save_random_vectors(folder / "vectors.txt")

    def arguments(self, data: Path | str, output: Path | str, *more: str) -> list[str]:
        """Command line of a short distillation with the models of this folder."""
        return [
            *("distill", "--data", str(data), "--output", str(output), "--encoder", str(self.encoder)),
            *("--mlm", str(self.encoder), "--glove", str(self.vectors), "--student", "2,16,32,4"),
            *("--any-language", "--threads", "1", "--dtype", "fp32", "--batch-size", "16", *QUICK, *more),
        ]

    def save(self, name: str, rows: Sequence[dict[str, Any]]) -> Path:
        """A CSV file of rows."""
        path = self.folder / name
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return path


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the trainer to its end: several processes, which a busy machine starts slowly."""
    command = [sys.executable, "-m", "trainer", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=800, check=False)


def sentences(count: int) -> list[str]:
    """Different sentences, whose first adjective says the class."""
    return [
        f"the {ADJECTIVES[i % 8]} {NOUNS[i // 8 % 7]} and a {ADJECTIVES[i // 56 % 8]} {NOUNS[(i // 448 + i) % 7]}"
        for i in range(count)
    ]


def labelled(count: int = 160, classes: Sequence[object] = ("bad", "good")) -> list[dict[str, Any]]:
    """Rows of a text and a class."""
    return [{"text": text, "label": classes[index % 8 % len(classes)]} for index, text in enumerate(sentences(count))]
