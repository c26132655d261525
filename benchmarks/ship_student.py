"""Package the general student from a finished `trainer general` run: `python benchmarks/ship_student.py RUN`.

Writes shared/embedded/student.safetensors and prints the digest for shared/embedded/student.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

from transformers import AutoModelForSequenceClassification

from shared.embedded.student import STUDENT_PATH, write_student
from trainer.models import load_tokenizer
from trainer.student import read_projections


def main(run: str) -> None:
    """Write the file from RUN/model."""
    folder = Path(run) / "model"
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    digest = write_student(STUDENT_PATH, model, read_projections(folder), load_tokenizer(str(folder)))
    print(f'STUDENT_SHA256 = "{digest}"')
    print(f"{STUDENT_PATH}: {STUDENT_PATH.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
