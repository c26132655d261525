"""Accuracy of `augment_service plan`: its predictions compared with actual runs on this machine, case by case.

    python benchmarks/plan.py --data ../shared/data/glue --golden ../shared/golden

Every case is a `plan`, a `run` and another `plan` with the same options, each in a separate process. On a shared
machine wall-clock time depends on other users, so the criterion is CPU time: the plan's estimate (model, vectors and
the rest, for all actors) against that of the run's actors once the first has loaded its models. Wall-clock time is also
reported, with the share of a core that the actors got.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.augment import cpu_name
from tests.support.command import descendants_of

LIMIT = 0.25
FIGURES = ("work_seconds", "masked_passes", "samples", "bytes")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the GLUE tasks")
    parser.add_argument("--golden", type=Path, required=True, help="folder of a small masked LM and vectors")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--only", nargs="+", help="run only the cases with these names")
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
        before, actual, after = one_case(row)
        cells = []
        for figure in FIGURES:
            predicted = [f"{plan[figure]:,.0f}" for plan in (before, after)]
            cell = " and ".join(dict.fromkeys(predicted))
            if figure in actual:
                errors = [plan[figure] / max(actual[figure], 1e-9) - 1 for plan in (before, after)]
                worst = max(worst, *map(abs, errors))
                cell += f" / {actual[figure]:,.0f} ({' and '.join(f'{error:+.0%}' for error in errors)})"
            cells.append(cell)
        cells.append(
            f"{before['seconds']:,.0f} and {after['seconds']:,.0f} / {actual['seconds']:,.0f}, "
            f"{actual['work_seconds'] / (actual['actors'] * actual['clock_seconds']):.0%} of a core"
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    print(f"## {options.rows:,} rows of each, {date.today()}, {cpu_name()}\n")
    print(f"`python benchmarks/plan.py {' '.join(sys.argv[1:])}`\n")
    print("| predicted / actual | work, seconds | masked passes | samples | bytes | wall clock, seconds |")
    print("|---|---|---|---|---|---|")
    print("\n".join(lines))
    print(f"\nLargest error: {worst:.0%} (required: within {LIMIT:.0%}).")
    return 0 if worst <= LIMIT else 1


def one_case(options: list[str]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Summaries of a plan, the run, and a second plan."""
    before = ours("plan", *options)
    with tempfile.TemporaryDirectory(prefix="augment-plan-") as folder:
        output = Path(folder) / "out"
        actual = ours("run", *options, "--output", str(output), watched=output)
        commits = [json.loads(path.read_text(encoding="utf-8")) for path in (output / "commits").glob("*.json")]
        asked = [one["statistics"]["model_inputs"] for one in commits if "model_inputs" in one["statistics"]]
    if asked:
        actual["masked_passes"] = sum(asked)
    return before, actual, ours("plan", *options)


def ours(command: str, *options: str, watched: Path | None = None) -> dict[str, Any]:
    """The `--json` summary of one of our commands, with the CPU time of its actors if `watched` is its output."""
    line = [sys.executable, "-m", "augment_service", command, *options, "--json", "--log-level", "error"]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True)
        actors = watch_actors(process, watched) if watched else {}
        stdout, _ = process.communicate()
        errors.seek(0)
        if process.returncode != 0:
            sys.exit(f"{command} failed:\n{errors.read()[-3000:]}")
    summary: dict[str, Any] = json.loads(stdout.strip().splitlines()[-1]) | actors
    if command == "plan":
        parts = ("model_actor_seconds", "vector_actor_seconds", "other_actor_seconds")
        summary["work_seconds"] = sum(summary[part] for part in parts)
    print(json.dumps(summary), file=sys.stderr, flush=True)
    return summary


def watch_actors(process: subprocess.Popen[str], output: Path) -> dict[str, float]:
    """CPU time of the run's actors since the manifest was written, wall-clock time, and number of actors."""
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    began = ended = 0.0
    while process.poll() is None and not (output / "_SUCCESS").exists():
        if (output / "manifest.json").exists():
            began = began or time.monotonic()
            ended = time.monotonic()
            for pid in descendants_of(process.pid):
                spent = actor_cpu_seconds(pid)
                if spent is not None:
                    first.setdefault(pid, spent)
                    last[pid] = spent
        time.sleep(0.1)
    work = sum(last[pid] - first[pid] for pid in last)
    mlm = sum(last[pid] - first[pid] > 0.5 for pid in last)
    return {"work_seconds": work, "clock_seconds": max(ended - began, 1e-9), "actors": max(mlm, 1)}


def actor_cpu_seconds(pid: int) -> float | None:
    """CPU time of one of our Ray actors; None for any other process, and for one that has exited."""
    try:
        name = Path(f"/proc/{pid}/cmdline").read_bytes()
        if not name.startswith((b"ray::MlmWorker", b"ray::GloveWorker")):
            return None
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
