"""Word vectors on one core: load time, lookups per second and memory, optionally compared with another version.

    python benchmarks/vectors.py                    # this version
    git worktree add ../before 65f549d
    python benchmarks/vectors.py --before ../before # that version and this one, alternating, twice

Lookups are of uncached words, 256 at a time, in the embedded 400,000 x 50 vectors; memory is what a lookup adds to the
peak. Loading is of a text file of 40,000 x 300, first uncached and then cached, each in a separate process. Times are
CPU time, which other work affects little.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

WORDS, PER_ASK, K = 1024, 256, 15
MEASURE = f"""
import json, resource, sys, time
try:
    from augment_service.engine.glove import GloveVectors
except ImportError:  # before the packages were cut into folders
    from augment_service.glove import GloveVectors
began = time.process_time()
vectors = GloveVectors.load(sys.argv[1])
load = time.process_time() - began
if len(sys.argv) > 2:
    print(json.dumps([load]))
    raise SystemExit
words = [str(word) for word in vectors.words[100_000 : 100_000 + {WORDS + PER_ASK}]]
vectors.nearest(words[:{PER_ASK // 16}], {K})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.process_time()
for start in range({PER_ASK}, {PER_ASK + WORDS}, {PER_ASK}):
    vectors.nearest(words[start : start + {PER_ASK}], {K})
seconds = time.process_time() - began
more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps([{WORDS} / seconds, more / 1024]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="checkout of another version")
    options = parser.parse_args()
    import numpy as np

    from benchmarks.augment import cpu_name

    versions = [*([("before", options.before.resolve())] if options.before else []), ("this version", ROOT)]
    print(f"## Word vectors, {date.today()}, one core of {cpu_name().partition(' of ')[2]}\n")
    print("| | load 40,000 x 300 | again | words/s | memory of an ask |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        text = Path(scratch) / "vectors.txt"
        rows = np.random.default_rng(0).standard_normal((40_000, 300)).astype(np.float32).round(4)
        lines = (f"word{number} {' '.join(map(str, row))}\n" for number, row in enumerate(rows.tolist()))
        text.write_text("".join(lines), encoding="utf-8")
        for round_ in range(2 if options.before else 1):
            for name, checkout in versions:
                # A fresh cache, so that the first load is uncached.
                cache = Path(scratch) / f"{round_} {name}"
                loads = [measured(checkout, cache, str(text), "load")[0] for _ in range(2)]
                rate, more = measured(checkout, cache, "embedded")
                print(f"| {name} | {loads[0]:.2f} s | {loads[1]:.2f} s | {rate:,.0f} | {more:,.0f} MiB |", flush=True)


def measured(checkout: Path, cache: Path, *arguments: str) -> list[float]:
    """The output of MEASURE in a checkout."""
    own = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    own |= {"PYTHONPATH": str(checkout), "XDG_CACHE_HOME": str(cache), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", MEASURE, *arguments]
    finished = subprocess.run(command, cwd=checkout, env=os.environ | own, capture_output=True, text=True, check=True)
    found: list[float] = json.loads(finished.stdout.strip().splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
