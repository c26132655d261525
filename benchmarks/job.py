"""The whole job compared with the bare engine on the same rows, shards and models: rows per second, and memory.

The job's throughput is measured from its first commit to its last, so it excludes starting Ray and loading models,
which a long job does once; that time is reported separately. The job has one masked-LM actor with one thread, the
engine one thread. They run in the order engine, job, engine.

    python benchmarks/job.py --layers 12 --hidden 768
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

N_A, K = 20, 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--sentences", type=int, default=256)
    parser.add_argument("--shard-rows", type=int, default=32)
    parser.add_argument("--work", type=Path, default=ROOT / "out" / "benchmark")
    parser.add_argument("--engine", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()

    from benchmarks.augment import cpu_name, prepare

    folder = prepare(options.work, options.layers, options.hidden)
    if options.engine:
        print(json.dumps(engine_seconds(folder, options.sentences, options.shard_rows)))
        return
    again = [sys.executable, __file__, *sys.argv[1:], "--engine"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def engine() -> dict[str, float]:
        finished = subprocess.run(again, check=True, capture_output=True, text=True, env=environment)
        result: dict[str, float] = json.loads(finished.stdout.strip().splitlines()[-1])
        return result

    first = engine()
    whole, steady, peaks = job(folder, options.sentences, options.shard_rows)
    second = engine()
    num_rows = options.sentences - options.shard_rows
    bare = num_rows / min(first["seconds"], second["seconds"])
    print(f"## Job and bare engine compared, {options.layers} x {options.hidden}, {date.today()}, {cpu_name()}")
    print(f"`python benchmarks/job.py {' '.join(sys.argv[1:])}`\n")
    print("| | rows/s | of the engine's rate | peak memory |\n|---|---|---|---|")
    rates = f"{num_rows / first['seconds']:.2f}, {num_rows / second['seconds']:.2f}"
    print(
        f"| bare engine, 1 thread (before and after the job: {rates}) | {bare:.2f} | "
        f"| {first['bytes'] / 2**20:,.0f} MiB |"
    )
    memory = ", ".join(f"{name} {size / 2**20:,.0f}" for name, size in peaks.items())
    print(
        f"| job, 1 actor with 1 thread, between first and last commit | {num_rows / steady:.2f} "
        f"| **{num_rows / steady / bare:.1%}** | {memory} MiB |"
    )
    print(f"\nThe whole command, including Ray's start and loading: {whole:.1f} s for {options.sentences} rows.")


def engine_seconds(folder: Path, count: int, shard_rows: int) -> dict[str, float]:
    """Seconds of all shards except the first, which is a warm-up, and peak memory."""
    import resource

    from augment_service.engine.augment import AugmentEngine
    from augment_service.engine.glove import GloveVectors
    from augment_service.engine.masked_lm import MaskedLM
    from shared.compute.memory import keep_freed_memory
    from shared.inputs.rows import SourceRow
    from shared.params import AugmentParams

    keep_freed_memory()
    sentences = json.loads((folder / "sentences.json").read_text(encoding="utf-8"))[:count]
    masked_lm = MaskedLM.load(str(folder / "model"), "cpu", "auto", 1)
    engine = AugmentEngine(masked_lm, GloveVectors.load(str(folder / "glove.txt")), AugmentParams(n_a=N_A, k=K))
    rows = [SourceRow(number, text) for number, text in enumerate(sentences)]
    shards = [rows[start : start + shard_rows] for start in range(0, count, shard_rows)]
    engine.samples(shards[0])
    began = time.monotonic()
    for shard in shards[1:]:
        engine.samples(shard)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": time.monotonic() - began, "bytes": float(peak)}


def job(folder: Path, count: int, shard_rows: int) -> tuple[float, float, dict[str, int]]:
    """Seconds of the whole command, seconds between first and last commit, peak memory in bytes by kind of process."""
    sentences = json.loads((folder / "sentences.json").read_text(encoding="utf-8"))[:count]
    table, output = folder / "job.tsv", folder / "job-out"
    table.write_text("text\n" + "".join(one + "\n" for one in sentences), encoding="utf-8")
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "augment_service", "run", "--input", str(table), "--text-column", "text"]
    command += ["--mlm", str(folder / "model"), "--glove", str(folder / "glove.txt"), "--n-a", str(N_A), "--k", str(K)]
    command += ["--shard-rows", str(shard_rows), "--mlm-actors", "1", "--mlm-threads", "1", "--output", str(output)]
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    peaks: dict[str, int] = {}
    done = threading.Event()
    watcher = threading.Thread(target=watch_memory, args=(process.pid, peaks, done))
    watcher.start()
    _, errors = process.communicate()
    whole = time.monotonic() - began
    done.set()
    watcher.join()
    if process.returncode != 0:
        sys.exit(f"the job failed:\n{errors[-2000:]}")
    times = sorted(path.stat().st_mtime for path in (output / "commits").iterdir())
    return whole, times[-1] - times[0], peaks


def watch_memory(pid: int, peaks: dict[str, int], done: threading.Event) -> None:
    """Record peak resident memory of driver, masked-LM actor and GloVe actor, including shared pages."""
    import psutil

    while not done.wait(0.3):
        try:
            processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        except psutil.Error:
            return
        for one in processes:
            try:
                title = " ".join(one.cmdline())
                kind = "driver" if one.pid == pid else next((k for k in ("MlmWorker", "GloveWorker") if k in title), "")
                if kind:
                    peaks[kind] = max(peaks.get(kind, 0), one.memory_info().rss)
            except psutil.Error:
                continue


if __name__ == "__main__":
    main()
