"""Run a small augmentation job on a CSV file and read its Arrow shards.

    .venv/bin/python examples/read_shards.py

The job is the same command that runs on a cluster; here it starts a local Ray with one actor.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.dataset

REVIEWS = """review,stars
a gripping and honest film,5
the plot is dull and the acting is worse,1
"funny, warm and beautifully shot",4
an empty story about nothing at all,2
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "reviews.csv", Path(folder) / "out"
        source.write_text(REVIEWS, encoding="utf-8")
        command = [sys.executable, "-m", "augment_service", "run", "--input", str(source), "--output", str(output)]
        command += ["--text-column", "review", "--label-column", "stars", "--n-a", "3", "--shard-rows", "2"]
        subprocess.run([*command, "--mlm-actors", "1"], check=True)

        # One Arrow file per shard. While a job runs, read only shards that have a record in commits/; this one is done.
        shards = pyarrow.dataset.dataset(output / "shards", format="arrow")
        # Rows with n = 0 are the source rows themselves, n = 1, 2, ... their samples. Labels carry over.
        for row in sorted(shards.to_table().to_pylist(), key=lambda row: (row["source_id"], row["n"])):
            print(row["source_id"], row["n"], row["label"], row["text_a"])


if __name__ == "__main__":
    main()
