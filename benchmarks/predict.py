"""Rows per second of `trainer predict` compared with plain loops over a transformers pipeline, on one file, as ratios.

The contenders alternate in one process, after a warm-up, each from the file on disk to predictions on disk. `loop`
calls the pipeline for one row at a time, as in the transformers documentation; `batched` passes it the whole list with
batch_size=32. Model loading is not counted.

    python benchmarks/predict.py --model runs/student/model --data glue/SST-2/train.tsv --text-column sentence
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import transformers

from trainer.predict import command
from trainer.predict.config import PredictConfig
from trainer.predict.models import open_predictor


def main() -> None:
    """Print a table of rows/s and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="Model folder.")
    parser.add_argument("--data", required=True, help="TSV file with a header and one text a row.")
    parser.add_argument("--text-column", required=True)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with TemporaryDirectory() as folder:
        data = _first_rows(options, Path(folder) / "data.csv")
        contenders = _contenders(options, data, Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for round_number in range(options.rounds + 1):
            for name, run in contenders.items():
                began = time.perf_counter()
                run()
                if round_number:
                    seconds[name].append(time.perf_counter() - began)
    base = statistics.median(seconds["loop"])
    print(f"{options.rows} rows, {options.threads} threads, median of {options.rounds} rounds\n")
    print("| contender | rows/s | x the loop |\n|---|---:|---:|")
    for name, values in seconds.items():
        taken = statistics.median(values)
        print(f"| {name} | {options.rows / taken:,.0f} | {base / taken:.1f} |")


def _first_rows(options: argparse.Namespace, path: Path) -> Path:
    with Path(options.data).open(encoding="utf-8", newline="\n") as file:
        names = file.readline().rstrip("\n").split("\t")
        column = names.index(options.text_column)
        texts = [line.rstrip("\n").split("\t")[column] for line in file][: options.rows]
    with path.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([("text",), *((text,) for text in texts)])
    options.rows = len(texts)
    return path


def _contenders(options: argparse.Namespace, data: Path, folder: Path) -> dict[str, Callable[[], None]]:
    pipe = transformers.pipeline("text-classification", model=options.model, top_k=None, device="cpu")

    def texts() -> list[str]:
        with data.open(encoding="utf-8", newline="") as file:
            return [row["text"] for row in csv.DictReader(file)]

    def write(answers: list[list[dict[str, float]]]) -> None:
        with (folder / "pipeline.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([one["score"] for one in answer] for answer in answers)

    def ours(dtype: str) -> Callable[[], None]:
        config = PredictConfig.build(
            {
                "model": options.model,
                "data": (str(data),),
                "output": str(folder / "ours.csv"),
                "text_column": ("text",),
                "dtype": dtype,
                "threads": options.threads,
                "log_level": "error",
            }
        )
        model = open_predictor(config)

        def run() -> None:
            command.predict_table(config, model)

        return run

    return {
        "loop": lambda: write([pipe(text, truncation=True)[0] for text in texts()]),
        "batched": lambda: write(pipe(texts(), truncation=True, batch_size=32)),
        "trainer predict, fp32": ours("fp32"),
        "trainer predict, auto": ours("auto"),
    }


if __name__ == "__main__":
    main()
