"""Throughput of the job with 1, 2 … actors compared with the bare engine; start-up; capacity and memory of a driver.

    python benchmarks/scaling.py throughput --actors 1 2
    python benchmarks/scaling.py driver --rows 1000000

`throughput` runs the real job with the embedded models. The ideal for N actors is N concurrent bare engine loops.
`driver` replaces the actors with a STUB that answers at once and computes nothing (for benchmarks only). What remains
is the driver, which reads 1 million rows, assigns them through Ray and collects the results.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from augment_service.config import RunConfig

TEXT = """the a of and in to it is film movie story with great good bad actor plot honest gripping dull funny charming
mess director scenes music family heart small beautiful boring clever performance never quite enough worth watching"""


def write_corpus(path: Path, rows: int) -> Path:
    """Write sentences of 6 to 24 words, the same ones every time."""
    from random import Random

    draw, words = Random(5), TEXT.split()
    with path.open("w", encoding="utf-8") as file:
        file.write("sentence\tlabel\n")
        for row in range(rows):
            file.write(" ".join(draw.choices(words, k=draw.randint(6, 24))) + f" {row}\t{row % 2}\n")
    return path


def config_of(corpus: Path, output: Path, shard_rows: int) -> RunConfig:
    """Configuration of the measured job."""
    return RunConfig(
        input=(str(corpus),), output=str(output), text_column=("sentence",), label_column="label", shard_rows=shard_rows
    )


def rate(output: Path, shard_rows: int, writers: int) -> float:
    """Rows/s between commits, excluding start and end: counted once each writer has committed one shard."""
    times = sorted(path.stat().st_mtime for path in output.glob("commits/*.json"))
    return (len(times) - writers) * shard_rows / (times[-1] - times[writers - 1])


def bare(corpus: Path, output: Path, shard_rows: int) -> subprocess.Popen[bytes]:
    """Start the bare engine in a separate process."""
    code = (
        "import sys; from pathlib import Path; from benchmarks.scaling import config_of; "
        "from tests.support.single_process import write_single_process; "
        "write_single_process(config_of(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(corpus), str(output), str(shard_rows)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)


def job(corpus: Path, output: Path, shard_rows: int, actors: int) -> tuple[float, float]:
    """Run the whole command.

    Returns seconds from its start to the first commit, and the actors' busy share, from an actor's first shard to its
    last (the rest is waiting for rows).
    """
    command = [sys.executable, "-m", "augment_service", "run", "--input", str(corpus), "--output", str(output)]
    command += ["--text-column", "sentence", "--label-column", "label", "--shard-rows", str(shard_rows)]
    command += ["--mlm-actors", str(actors), "--address", "local", "--log-level", "debug", "--log-format", "json"]
    # Ray starts its workers at niceness 15, but the bare loops run at 0 and the machine is shared.
    environment = os.environ | {"RAY_worker_niceness": "0"}
    began = time.time()
    finished = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    first = min(path.stat().st_mtime for path in output.glob("commits/*.json"))
    # Ray may merge the lines of two actors.
    found = re.findall(r"\{[^{}]*shard_committed[^{}]*\}", finished.stderr)
    entries = [json.loads(one) for one in found]
    at_work = span = 0.0
    for actor in {one["actor"] for one in entries}:
        shards = [(one["time"], one["seconds"]) for one in entries if one["actor"] == actor]
        at_work += sum(seconds for _, seconds in shards)
        span += max(shards)[0] - min(time - seconds for time, seconds in shards)
    return first - began, at_work / span


def throughput(options: argparse.Namespace) -> None:
    """Run bare loops and jobs one after the other and print a table."""
    folder = Path(tempfile.mkdtemp(prefix="scaling"))
    corpus = write_corpus(folder / "corpus.tsv", options.rows)
    lines = [
        "| actors | ideal: bare loops, rows/s | job, rows/s | of ideal | actors at work | start to first commit |",
        "|---|---|---|---|---|---|",
    ]
    for actors in options.actors:
        # Bare, job, bare: changes in the machine's load affect both.
        before = bare_rate(corpus, folder, options.shard_rows, actors, "before")
        output = folder / f"job-{actors}"
        startup, share = job(corpus, output, options.shard_rows, actors)
        after = bare_rate(corpus, folder, options.shard_rows, actors, "after")
        ideal, reached = (before + after) / 2, rate(output, options.shard_rows, actors)
        lines.append(
            f"| {actors} | {ideal:.1f} ({before:.1f} before, {after:.1f} after) | {reached:.1f} "
            f"| {reached / ideal:.0%} | {share:.1%} | {startup:.1f} s |"
        )
        print(lines[-1], file=sys.stderr, flush=True)
    command = "python benchmarks/scaling.py " + " ".join(sys.argv[1:])
    print(f"{date.today()}, {os.cpu_count()} cores, `{command}`\n\n" + "\n".join(lines))


def bare_rate(corpus: Path, folder: Path, shard_rows: int, count: int, name: str) -> float:
    """Total rows/s of `count` concurrent bare loops."""
    outputs = [folder / f"bare-{count}-{name}-{number}" for number in range(count)]
    processes = [bare(corpus, output, shard_rows) for output in outputs]
    for process in processes:
        assert process.wait() == 0
    return sum(rate(output, shard_rows, 1) for output in outputs)


class StubActor:
    """STUB: answers at once, computes nothing, commits nothing."""

    def work(self, shard: int, rows: Any, quarantined: Any, schema: Any) -> None:
        """Do nothing."""


class StubActorPool:
    """STUB of augment_service.job.actor_pool.ActorPool: its actors are ready from the start."""

    def __init__(self, ray: Any, count: int) -> None:
        made = ray.remote(num_cpus=0)(StubActor)
        self.handles = {f"stub-{number}": made.remote() for number in range(count)}
        self.pending: list[Any] = []
        self.num_ready, self.num_starting, self.num_nodes = count, 0, 1

    def grow(self) -> None:
        """Do nothing: the number of actors is fixed."""

    def progressed(self) -> None:
        """Do nothing: actors do not die."""

    def handle(self, name: str) -> Any:
        """Ray's handle of an actor."""
        return self.handles[name]

    def vectors_of(self, name: str) -> int:
        """Return a constant: there are no vectors."""
        return 0

    def dismiss(self) -> None:
        """Do nothing: the actors end with Ray."""


def driver(options: argparse.Namespace) -> None:
    """Run the real driver, scheduler and input reader with stub actors; print shards/s and memory over time."""
    import psutil

    from augment_service.job.driver import Driver
    from augment_service.job.heartbeat import Heartbeat
    from augment_service.job.ray_metrics import RayMetrics
    from augment_service.job.scheduler import Scheduler
    from augment_service.job.shard_work import shard_work
    from shared.compute.ray_session import ray_session
    from shared.inputs.options import from_config
    from shared.inputs.sources import open_source
    from shared.schema import samples_schema
    from shared.storage.store import open_store

    folder = Path(tempfile.mkdtemp(prefix="scaling"))
    config = config_of(write_corpus(folder / "corpus.tsv", options.rows), folder / "out", 512)
    began = time.monotonic()
    source = open_source(from_config(config))
    first_pass = time.monotonic() - began
    num_shards = -(-source.num_rows // config.shard_rows)
    process, samples, stop = psutil.Process(), [], threading.Event()

    def watch() -> None:
        while not stop.wait(0.5):
            samples.append(process.memory_info().rss / 2**20)

    with ray_session("local") as (ray, _):
        pool = StubActorPool(ray, options.stub_actors)
        scheduler = Scheduler(shard_work(source, config.shard_rows, set(range(num_shards))))
        for name in pool.handles:
            scheduler.add_actor(name)
        beat = Heartbeat("benchmark", rows=source.num_rows, shards=num_shards, shards_left=num_shards)
        schema = samples_schema(source.label_type, list(source.rest_fields))
        store = open_store(config.output)
        threading.Thread(target=watch, daemon=True).start()
        began = time.monotonic()
        metrics = RayMetrics("benchmark", "driver")
        Driver(
            ray=ray,
            config=config,
            schema=schema,
            store=store,
            scheduler=scheduler,
            pool=pool,  # type: ignore[arg-type]
            heartbeat=beat,
            metrics=metrics,
        ).run()
        seconds = time.monotonic() - began
        stop.set()
    quarters = [samples[len(samples) * part // 4] for part in range(4)] + [samples[-1]]
    result = {
        "date": str(date.today()),
        "rows": source.num_rows,
        "shards": num_shards,
        "stub_actors": options.stub_actors,
        "first_pass_seconds": round(first_pass, 1),
        "seconds": round(seconds, 1),
        "shards_per_second": round(num_shards / seconds, 1),
        "rows_per_second": round(source.num_rows / seconds),
        "driver_mib_at_0_25_50_75_100_percent": [round(one) for one in quarters],
        "peak_mib": round(max(samples)),
    }
    print(json.dumps(result))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("throughput")
    one.add_argument("--actors", type=int, nargs="+", default=[1, 2])
    one.add_argument("--rows", type=int, default=640)
    one.add_argument("--shard-rows", type=int, default=32)
    two = commands.add_parser("driver")
    two.add_argument("--rows", type=int, default=1_000_000)
    two.add_argument("--stub-actors", type=int, default=2)
    options = parser.parse_args()
    {"throughput": throughput, "driver": driver}[options.command](options)


if __name__ == "__main__":
    main()
