"""A soak of a job: SIGKILL and SIGSTOP of actors, vectors, workers, agents, nodes and the driver at random moments.

    python -m tests.chaos.storm --kills 8 --log benchmarks/results/soak.txt
    python -m tests.chaos.storm --kills 8 --nodes-by test-cluster
    python -m tests.chaos.storm --kills 400 --first-seed 1000 --s3-faults 0.1

One cluster of three nodes and a head that does no work lives through all seeds. Per seed, a job runs as a process of
its own into a new output, and is hit by volleys of up to eight kills and stops, drawn from the seed; at least one
commit comes between two volleys. A killed driver is restarted at once and may be killed again while it starts; a killed
node is followed by another. What was stopped goes on after some seconds, or stays stopped until the run replaces it.
With --s3-faults the outputs are in an S3 server (moto), behind a proxy that breaks that share of the requests. Whenever
a job ends, its shards must equal those of an undisturbed single-process run, byte for byte, and `verify` must find no
errors; then the next seed begins, until all kills were made.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from augment_service.config import RunConfig
from shared.cli.options import add_arguments
from shared.cli.values import from_namespace
from shared.storage.store import Store, open_store
from tests.integration.conftest import Job
from tests.support.command import ROOT, call_main, descendants_of
from tests.support.object_store import ENVIRONMENT, FaultyProxy, moto_server, s3_client
from tests.support.ray_nodes import TOKEN_ENVIRONMENT, Nodes, StartedNodes, TestCluster, kill
from tests.support.single_process import write_single_process

NUM_NODES = 3
KINDS = {
    "actor": 0.34,
    "vectors": 0.14,
    "worker": 0.12,
    "agent": 0.02,
    "node": 0.06,
    "driver": 0.06,
    "stop-actor": 0.1,
    "stop-vectors": 0.06,
    "stop-node": 0.06,
    "stop-driver": 0.04,
}
"""Kinds of kills and stops, and how often each is drawn."""
TITLES = {
    "actor": (b"ray::MlmWorker",),
    "vectors": (b"ray::GloveWorker",),
    "worker": (b"ray::",),
    "agent": (b"ray::DashboardAgent", b"ray::RuntimeEnvAgent"),
}
SHORT_STOP, LONG_STOP = (0.5, 5.0), {"node": 45.0, "driver": 12.0}
"""Seconds of a stop: mostly short; one in four is longer than Ray's and the driver's patience, or has no end."""
LARGEST_VOLLEY, LONGEST_VOLLEY_SECONDS = 8, 6.0
STALL_SECONDS = 12.0
LOOK_SECONDS = 0.1
LONGEST_SECONDS = 1500.0


class Storm:
    """One seed: the driver under test, the nodes, and counts of what was killed or stopped."""

    def __init__(
        self, nodes: Nodes, arguments: list[str], folder: Path, seed: int, say: Callable[[str], None], num_kills: int
    ) -> None:
        self.nodes, self.arguments, self.folder, self.num_kills = nodes, arguments, folder, num_kills
        self.store = open_store(arguments[arguments.index("--output") + 1])
        self.random, self.seed, self._say = random.Random(seed), seed, say
        self.killed: Counter[str] = Counter()
        self.stopped: list[tuple[float, list[int]]] = []
        self.began = time.monotonic()
        self.driver = self.start_driver()

    def start_driver(self) -> subprocess.Popen[bytes]:
        """Start the command under test; its output is appended to one file."""
        command = [sys.executable, "-m", "augment_service", *self.arguments]
        environment = os.environ | TOKEN_ENVIRONMENT
        with (self.folder / f"driver-{self.seed}.log").open("ab") as file:
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)

    def commits(self) -> int:
        """Number of committed shards."""
        return len(self.store.list("commits"))

    def say(self, text: str) -> None:
        """Add a line to the log."""
        self._say(f"seed {self.seed}  {time.monotonic() - self.began:6.1f}s  {text}")

    def run(self) -> int:
        """Kill until the job ends; returns the driver's exit code, -1 if it takes too long."""
        wanted = self.random.randint(0, 2)
        try:
            while self.driver.poll() is None:
                if time.monotonic() - self.began > LONGEST_SECONDS:
                    kill([self.driver.pid])
                    self.say("gave up: the run takes too long")
                    return -1
                self.go_on(time.monotonic())
                if num_gone := self.nodes.mend():
                    self.say(f"{num_gone} nodes had ended by themselves; as many new ones join")
                if self.killed.total() < self.num_kills and (commits := self.commits()) >= wanted:
                    # At a moment drawn from the seed.
                    time.sleep(self.random.uniform(0.0, 0.5))
                    if volley := self.volley():
                        self.say(f"commits {commits:3d}  {'; '.join(volley)}")
                    wanted = self.commits() + self.random.randint(1, 3)
                time.sleep(LOOK_SECONDS)
        finally:
            kill([self.driver.pid] if self.driver.poll() is None else [])
            # What is still stopped would keep its place in the cluster from the next job.
            for _, pids in self.stopped:
                kill(pids) if len(pids) == 1 else signal_all(pids, signal.SIGCONT)
        return self.driver.returncode

    def volley(self) -> list[str]:
        """Kill and stop up to eight things, some at the same moment, some in the next seconds; returns what."""
        size = min(self.random.randint(1, LARGEST_VOLLEY), self.num_kills - self.killed.total())
        done: list[str] = []
        end = time.monotonic() + LONGEST_VOLLEY_SECONDS
        kind = self.draw()
        while len(done) < size and time.monotonic() < end and self.driver.poll() is None:
            if what := self.kill_something(kind):
                self.killed[kind] += 1
                done.append(what)
                kind = self.draw()
                if self.random.random() < 0.5:
                    time.sleep(self.random.uniform(0.0, 1.5))
            else:
                time.sleep(LOOK_SECONDS)
            self.go_on(time.monotonic())
        return done

    def draw(self) -> str:
        """A kind, by its share."""
        return self.random.choices(list(KINDS), list(KINDS.values()))[0]

    def kill_something(self, kind: str) -> str:
        """Kill or stop one thing of this kind; returns what it was, "" if there is none of that kind now."""
        stops, what = kind.startswith("stop-"), kind.removeprefix("stop-")
        if what == "driver":
            if stops:
                return f"stopped driver {self.driver.pid} {self.stop(what, [self.driver.pid])}"
            kill([self.driver.pid])
            self.driver.wait()
            before, self.driver = self.driver.pid, self.start_driver()
            return f"killed driver {before}, running it again"
        roots = self.nodes.root_pids()
        if what == "node":
            index = self.random.randrange(len(roots))
            if stops:
                pids = [roots[index], *descendants_of(roots[index])]
                return f"stopped node {index} ({len(pids)} processes) {self.stop(what, pids)}"
            pids = self.nodes.kill_node(index)
            self.nodes.add()
            return f"killed node {index} ({len(pids)} processes), another one joins"
        titles = {pid: title for root in roots for pid in descendants_of(root) if (title := title_of(pid))}
        found = sorted(pid for pid, title in titles.items() if self.is_of_kind(title, what))
        if not found:
            return ""
        pid = self.random.choice(found)
        name = f"{what} {pid} ({titles[pid].decode(errors='replace')})"
        if stops:
            return f"stopped {name} {self.stop(what, [pid])}"
        kill([pid])
        return f"killed {name}"

    def is_of_kind(self, title: bytes, kind: str) -> bool:
        """Whether a process with this title may be killed as that kind. A node ends with its agents."""
        return title.startswith(TITLES[kind]) and (kind == "agent" or not title.startswith(TITLES["agent"]))

    def stop(self, kind: str, pids: list[int]) -> str:
        """SIGSTOP these processes for a time that is drawn now; returns for how long, in words."""
        seconds = self.random.uniform(*SHORT_STOP)
        if self.random.random() < 0.25:
            seconds = LONG_STOP.get(kind, float("inf"))
        signal_all(pids, signal.SIGSTOP)
        self.stopped.append((time.monotonic() + seconds, pids))
        return f"for {seconds:.1f} s" if seconds < float("inf") else "for good"

    def go_on(self, now: float) -> None:
        """SIGCONT what was stopped long enough."""
        for due, pids in self.stopped:
            if due <= now:
                signal_all(pids, signal.SIGCONT)
        self.stopped = [(due, pids) for due, pids in self.stopped if due > now]


def signal_all(pids: list[int], number: signal.Signals) -> None:
    """Send a signal to those that still exist."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def title_of(pid: int) -> bytes:
    """The title of one of Ray's processes; empty for any other."""
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    except OSError:
        return b""
    return title if title.startswith(b"ray::") else b""


def prepare(folder: Path, rows: int) -> tuple[Job, Path]:
    """Make a job and the output of its undisturbed single-process run."""
    job = Job(folder, rows)
    # Shards that take some time, so that kills hit actors at work.
    job.common += ["--n-a", "60", "--shard-rows", "16"]
    reference = folder / "single-process"
    parser = argparse.ArgumentParser()
    add_arguments(parser, RunConfig)
    config = from_namespace(RunConfig, parser.parse_args(job.arguments(reference)[1:]))
    assert isinstance(config, RunConfig)
    write_single_process(config)
    return job, reference


def storm(
    nodes: Nodes, job: Job, reference: Path, seed: int, num_kills: int, say: Callable[[str], None], base: str = ""
) -> Counter[str]:
    """Run one seed; returns the kills, at most `num_kills`.

    Raises AssertionError when the run fails, a byte differs or a row is lost. base: URI of a folder in an object store;
    the output is on disk without it.
    """
    folder = reference.parent
    output = f"{base}/storm-{seed}" if base else str(folder / f"storm-{seed}")
    options = ["--address", nodes.address, "--stall-seconds", str(STALL_SECONDS), "--output", output]
    one = Storm(nodes, [*job.common, *options], folder, seed, say, num_kills)
    status = one.run()
    driver_log = (folder / f"driver-{seed}.log").read_text(encoding="utf-8", errors="replace")
    assert status == 0, f"seed {seed}: the driver ended with {status}\n{driver_log[-4000:]}"
    found = _result_in(one.store)
    assert found == _result_in(open_store(str(reference))), f"seed {seed}: the shards differ"
    verified = call_main("verify", output)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    one.say(f"complete: {len(found)} files equal to the single-process run, verify is content; {dict(one.killed)}")
    if not base:
        shutil.rmtree(output)
    return one.killed


def _result_in(store: Store) -> dict[str, str]:
    """Hashes of what a run must leave, by name."""
    names = [name for folder in ("shards", "quarantine") for name in store.list(folder)]
    return {name: hashlib.sha256(store.read(name)).hexdigest() for name in names}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=8, help="kills and stops in all")
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--nodes-by", choices=("test-cluster", "ray-start"), default="ray-start")
    parser.add_argument("--s3-faults", type=float, default=None, help="share of broken requests; output in S3")
    parser.add_argument("--log", type=Path)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="storm-job"))
    total: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(options.log.open("a", encoding="utf-8")) if options.log else None

        def say(text: str) -> None:
            print(text, flush=True)
            if file:
                print(text, file=file, flush=True)

        say(f"$ python -m tests.chaos.storm {' '.join(sys.argv[1:])}   # {time.strftime('%Y-%m-%d')}")
        base = ""
        if options.s3_faults is not None:
            url = stack.enter_context(moto_server(folder / "moto.log"))
            s3_client(url).create_bucket(Bucket="bucket")
            proxy = stack.enter_context(FaultyProxy(url, options.s3_faults, seed=options.first_seed))
            os.environ |= ENVIRONMENT | {"AWS_ENDPOINT_URL_S3": proxy.url}
            base = "s3://bucket/soak"
        job, reference = prepare(folder, options.rows)
        nodes: Nodes = TestCluster(NUM_NODES) if options.nodes_by == "test-cluster" else StartedNodes(NUM_NODES)
        stack.callback(nodes.close)
        began, seed = time.monotonic(), options.first_seed
        try:
            while total.total() < options.kills:
                total += storm(nodes, job, reference, seed, options.kills - total.total(), say, base)
                seed += 1
        finally:
            if base:
                say(f"faults of the store: {dict(proxy.faults)}")
            num_stops = sum(count for kind, count in total.items() if kind.startswith("stop-"))
            minutes = (time.monotonic() - began) / 60
            say(
                f"{total.total()} kills and stops in all, {num_stops} of them stops, in {seed - options.first_seed} "
                f"complete jobs and {minutes:.0f} minutes: {dict(total)}\n"
            )
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
