"""What `augment_service plan` foretells beside what the same run then takes, case by case, on this machine.

    python benchmarks/plan.py --data ../shared/data/glue --golden ../shared/golden

Every case is a `plan`, a `run` and another `plan` with the same options, each in a process of its own. The pace of a
shared machine changes from minute to minute: the two plans show by how much, and their mean is what is judged.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.augment import cpu_name

LIMIT = 0.25
FIGURES = ("seconds", "masked_passes", "samples", "bytes")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the GLUE tasks")
    parser.add_argument("--golden", type=Path, required=True, help="folder of a small masked LM and vectors")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--only", nargs="+", help="names of cases")
    options = parser.parse_args()
    small = ["--mlm", str(options.golden / "model"), "--glove", str(options.golden / "glove.txt.gz")]
    cases = {
        "SST-2, embedded": ("SST-2", []),
        "MRPC, embedded": ("MRPC", []),
        "SST-2, 2 x 128": ("SST-2", small),
        "MRPC, 2 x 128": ("MRPC", small),
        "SST-2, embedded, sequential, N_a 2": ("SST-2", ["--conditioning", "sequential", "--n-a", "2"]),
        "MRPC, embedded, unmasked": ("MRPC", ["--context", "unmasked"]),
    }
    lines, worst = [], 0.0
    for name, (task, more) in cases.items():
        if options.only and name not in options.only:
            continue
        source = options.data / task / "train.tsv"
        row = ["--task", task, "--input", str(source), "--limit", str(options.rows), *more]
        before, came, after = one_case(row)
        cells = []
        for figure in FIGURES:
            told = f"{before[figure]:,.0f} and {after[figure]:,.0f}"
            if before[figure] == after[figure]:
                told = f"{before[figure]:,.0f}"
            if figure not in came:
                cells.append(told)
                continue
            error = (before[figure] + after[figure]) / 2 / max(came[figure], 1e-9) - 1
            worst = max(worst, abs(error))
            cells.append(f"{told} / {came[figure]:,.0f} ({error:+.0%})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    print(f"## {options.rows:,} rows of each, {date.today()}, {cpu_name()}\n")
    print(f"`python benchmarks/plan.py {' '.join(sys.argv[1:])}`\n")
    print("| foretold / came | seconds | masked passes | samples | bytes |\n|---|---|---|---|---|")
    print("\n".join(lines))
    print(f"\nLargest error: {worst:.0%} (asked for: within {LIMIT:.0%}).")
    return 0 if worst <= LIMIT else 1


def one_case(options: list[str]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A plan's figures, the run's, and another plan's."""
    before = ours("plan", *options)
    with tempfile.TemporaryDirectory(prefix="augment-plan-") as folder:
        output = Path(folder) / "out"
        came = ours("run", *options, "--output", str(output))
        commits = [json.loads(path.read_text(encoding="utf-8")) for path in (output / "commits").glob("*.json")]
        asked = [one["statistics"]["model_inputs"] for one in commits if "model_inputs" in one["statistics"]]
    if asked:
        came["masked_passes"] = sum(asked)
    return before, came, ours("plan", *options)


def ours(command: str, *options: str) -> dict[str, Any]:
    """The `--json` summary of one of our commands."""
    line = [sys.executable, "-m", "augment_service", command, *options, "--json", "--log-level", "error"]
    finished = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        sys.exit(f"{command} failed:\n{finished.stderr[-3000:]}")
    summary: dict[str, Any] = json.loads(finished.stdout.strip().splitlines()[-1])
    if command == "plan":
        print(json.dumps(summary), file=sys.stderr)
    return summary


if __name__ == "__main__":
    sys.exit(main())
