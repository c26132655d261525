"""Reading speed of a plain two-column table on one core, and whether memory stays constant.

    python -m benchmarks.read_tables --rows 2000000

Prints rows per second of the second pass (which a job waits for while it runs) and of both passes together, and the
peak memory in excess of that for a table a tenth as long.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from shared.inputs.options import InputOptions
from shared.inputs.sources import open_source

FORMATS = ("tsv", "csv", "parquet", "jsonl")


def write(path: Path, rows: int) -> None:
    """Write a table with texts of SST-2's average length and a label."""
    sentence = "a gripping , intelligent and moving film that holds"
    block = pa.table({"sentence": [f"{sentence} {number}" for number in range(10_000)], "label": [0, 1] * 5_000})
    blocks = rows // 10_000
    if path.suffix == ".parquet":
        with pq.ParquetWriter(path, block.schema) as writer:
            for _ in range(blocks):
                writer.write_table(block)
    elif path.suffix == ".jsonl":
        lines = "".join(f'{{"sentence": "{sentence} {number}", "label": {number % 2}}}\n' for number in range(10_000))
        with path.open("w") as file:
            for _ in range(blocks):
                file.write(lines)
    else:
        mark = "\t" if path.suffix == ".tsv" else ","
        quote = '"' if path.suffix == ".csv" else ""
        rows_of_block = "".join(f"{quote}{sentence} {number}{quote}{mark}{number % 2}\n" for number in range(10_000))
        with path.open("w") as file:
            file.write(f"sentence{mark}label\n")
            for _ in range(blocks):
                file.write(rows_of_block)


def measure(path: Path) -> None:
    """Read one file in this process; print seconds of both passes, of the second, and the peak memory in MB."""
    options = InputOptions(input=(str(path),), text_column=("sentence",), label_column="label")
    started = time.process_time()
    source = open_source(options)
    first = time.process_time() - started
    count = sum(1 for _ in source.rows())
    assert count == source.num_rows
    second = time.process_time() - started - first
    print(count, first, second, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _measured(path: Path) -> list[float]:
    command = [sys.executable, "-m", "benchmarks.read_tables", "--measure", str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return [float(value) for value in result.stdout.split()]


def main() -> None:
    """Measure each format in a separate process, in CPU seconds, so that other work on the machine does not count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--measure", type=Path)
    options = parser.parse_args()
    if options.measure:
        return measure(options.measure)
    print("format     rows/s of a pass   both passes   peak MB   more than for a tenth")
    with tempfile.TemporaryDirectory() as folder:
        for kind in FORMATS:
            small, large = Path(folder, f"small.{kind}"), Path(folder, f"large.{kind}")
            write(small, options.rows // 10)
            write(large, options.rows)
            _, _, _, peak_of_small = _measured(small)
            rows, first, second, peak = _measured(large)
            more = peak - peak_of_small
            print(f"{kind:8} {rows / second:18,.0f} {rows / (first + second):13,.0f} {peak:9,.0f} {more:10,.0f} MB")
    return None


if __name__ == "__main__":
    main()
