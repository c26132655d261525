"""`make demo`: augment real film-review sentences with the embedded models, then show where the shards are and samples.

Everything that it does a user can do with the printed command.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.demo.reviews import prepare_reviews
from shared.errors import ExpectedError
from shared.shards import list_commits, read_shard
from shared.store import open_store

NUM_SHOWN = 4
SAMPLES_SHOWN = 3


def main() -> int:
    """Run the demo; exit code 0, or 1 with one line on stderr."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/demo"))
    parser.add_argument("--rows", type=int, default=500)
    options = parser.parse_args()
    try:
        train, _ = prepare_reviews(options.output / "data")
        output = options.output / f"augmented-{options.rows}"
        arguments = [
            "run", "--input", str(train), "--text-column", "sentence", "--label-column", "label",
            "--output", str(output), "--limit", str(options.rows), "--shard-rows", "128",
        ]  # fmt: skip
        print("$ python -m augment_service " + shlex.join(arguments), flush=True)
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        finished = subprocess.run([sys.executable, "-m", "augment_service", *arguments], check=False, env=environment)
        if finished.returncode != 0:
            return finished.returncode
        show_samples(output)
        print("\ncheck every byte   python -m augment_service verify " + shlex.quote(str(output)))
        shards = output / "shards" / "*.arrow"
        print(f"read them          datasets.load_dataset('arrow', data_files='{shards}')")
    except BrokenPipeError:
        # The reader of our output went away (`| head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ExpectedError as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def show_samples(output: Path) -> None:
    """Print a few source texts of the first shard, each with its first samples, replacements marked."""
    store = open_store(str(output))
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
