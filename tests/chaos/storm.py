"""A soak of a job: SIGKILL and SIGSTOP of actors, vectors, any worker, nodes and the driver at random moments.

    python -m tests.chaos.storm --seeds 1 2 3 --kills 8 --log benchmarks/results/chaos.log
    python -m tests.chaos.storm --seeds 4 --kills 4 --nodes-by ray-start
    python -m tests.chaos.storm --seeds 5 6 --kills 50 --s3-faults 0.1

Per seed: a cluster of three nodes and a head that does no work, the job as a separate process, and kills drawn from the
seed. A killed driver is restarted; a killed node is followed by a new one that joins later. A stopped actor stays
stopped until the run replaces it, a stopped driver goes on after some seconds. With --s3-faults the output is in an S3
server (moto), behind a proxy that breaks that share of the requests. At the end the shards must
equal those of an undisturbed single-process run, byte for byte, and `verify` must find no errors.
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
from pathlib import Path

from augment_service.config import RunConfig
from augment_service.job.heartbeat import read_heartbeats
from shared.cli.options import add_arguments
from shared.cli.values import from_namespace
from shared.storage.store import Store, open_store
from tests.integration.conftest import Job
from tests.support.command import ROOT, descendants_of
from tests.support.object_store import ENVIRONMENT, FaultyProxy, moto_server, s3_client
from tests.support.ray_nodes import TOKEN_ENVIRONMENT, Nodes, StartedNodes, TestCluster, kill
from tests.support.single_process import write_single_process

NUM_NODES = 3
KINDS = {
    "actor": 0.3,
    "vectors": 0.15,
    "worker": 0.15,
    "node": 0.1,
    "driver": 0.15,
    "stop-actor": 0.1,
    "stop-driver": 0.05,
}
STALL_SECONDS = 15.0
TITLES = {
    "actor": b"ray::MlmWorker",
    "stop-actor": b"ray::MlmWorker",
    "vectors": b"ray::GloveWorker",
    "worker": b"ray::",
}
LONGEST_SECONDS = 1500.0


class Storm:
    """One seed: the driver under test, the nodes, and counts of what was killed."""

    def __init__(self, nodes: Nodes, arguments: list[str], folder: Path, seed: int, log: list[str]) -> None:
        self.nodes, self.arguments, self.folder = nodes, arguments, folder
        self.store = open_store(arguments[arguments.index("--output") + 1])
        self.random, self.seed, self.log = random.Random(seed), seed, log
        self.killed: Counter[str] = Counter()
        self.kind = ""
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
        """Add a line to the log; actors and nodes are from the driver's last heartbeat, up to 5 s ago."""
        beats = read_heartbeats(self.store)
        actors = f"{beats[-1].actors_ready} actors on {beats[-1].nodes} nodes" if beats else ""
        seconds = time.monotonic() - self.began
        line = f"seed {self.seed}  {seconds:6.1f}s  commits {self.commits():3d}  {actors:19}  {text}"
        self.log.append(line)
        print(line, flush=True)

    def run(self, num_kills: int) -> int:
        """Kill until `num_kills` are done, then wait for the end; returns the driver's exit code."""
        wanted = 1
        self.draw()
        while self.driver.poll() is None or self.killed.total() < num_kills:
            if time.monotonic() - self.began > LONGEST_SECONDS:
                kill([self.driver.pid])
                self.say("gave up: the run takes too long")
                return -1
            if self.driver.poll() is not None:
                if self.driver.returncode == 0:
                    self.say("the run finished before all kills were made: use more rows")
                return self.driver.returncode
            if num_gone := self.nodes.mend():
                self.say(f"{num_gone} nodes had ended by themselves; as many new ones join")
            if self.killed.total() < num_kills and self.commits() >= wanted:
                # At a moment drawn from the seed, after at least one commit since the last kill.
                time.sleep(self.random.uniform(0.0, 1.0))
                if self.kill_something():
                    self.draw()
                    wanted = self.commits() + self.random.randint(1, 3)
            time.sleep(0.02)
        return self.driver.returncode

    def draw(self) -> None:
        """Draw what to kill next."""
        self.kind = self.random.choices(list(KINDS), list(KINDS.values()))[0]

    def kill_something(self) -> bool:
        """Kill -9 one thing of the drawn kind; False if there is none yet."""
        kind = self.kind
        if kind == "driver":
            if self.driver.poll() is not None:
                return False
            kill([self.driver.pid])
            self.driver.wait()
            self.killed[kind] += 1
            self.say(f"killed driver pid {self.driver.pid}; running the same command again")
            self.driver = self.start_driver()
            return True
        if kind == "stop-driver":
            os.kill(self.driver.pid, signal.SIGSTOP)
            time.sleep(self.random.uniform(1.0, 5.0))
            os.kill(self.driver.pid, signal.SIGCONT)
            self.killed[kind] += 1
            self.say(f"stopped driver pid {self.driver.pid} for a while")
            return True
        if kind == "node":
            index = self.random.randrange(len(self.nodes.root_pids()))
            pids = self.nodes.kill_node(index)
            self.killed[kind] += 1
            self.say(f"killed node {index} with its {len(pids)} processes; another one joins")
            self.nodes.add()
            return True
        found = [pid for root in self.nodes.root_pids() for pid in descendants_of(root) if self.title(pid, kind)]
        if not found:
            return False
        pid = self.random.choice(sorted(found))
        title = self.title(pid, kind)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP if kind == "stop-actor" else signal.SIGKILL)
        self.killed[kind] += 1
        self.say(f"{'stopped actor' if kind == 'stop-actor' else f'killed {kind}'} pid {pid} ({title})")
        return True

    def title(self, pid: int, kind: str) -> str:
        """Ray's title of a process of that kind, or "" for any other process."""
        try:
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return ""
        return title.split(b"\0")[0].decode() if title.startswith(TITLES[kind]) else ""


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
    job: Job, reference: Path, seed: int, num_kills: int, nodes_by: str, log: list[str], base: str = ""
) -> Counter[str]:
    """Run one seed; returns the kills. Raises AssertionError when a byte differs or a row is lost.

    base: URI of a folder in an object store; the output is on disk without it.
    """
    folder = reference.parent
    output = f"{base}/storm-{seed}" if base else str(folder / f"storm-{seed}")
    if nodes_by == "ray-start":
        nodes: Nodes = StartedNodes(NUM_NODES)
    else:
        nodes = TestCluster(NUM_NODES)
    try:
        options = ["--address", nodes.address, "--stall-seconds", str(STALL_SECONDS), "--output", output]
        one = Storm(nodes, [*job.common, *options], folder, seed, log)
        status = one.run(num_kills)
    finally:
        nodes.close()
    driver_log = (folder / f"driver-{seed}.log").read_text(encoding="utf-8", errors="replace")
    assert status == 0, f"seed {seed}: the driver ended with {status}\n{driver_log[-4000:]}"
    assert _result_in(one.store) == _result_in(open_store(str(reference))), f"seed {seed}: the shards differ"
    verified = subprocess.run(
        [sys.executable, "-m", "augment_service", "verify", output], cwd=ROOT, capture_output=True, text=True
    )
    assert verified.returncode == 0, verified.stdout
    one.say(f"complete; {len(_result_in(one.store))} files equal to the single-process run; {dict(one.killed)}")
    return one.killed


def _result_in(store: Store) -> dict[str, str]:
    """Hashes of what a run must leave, by name."""
    names = [name for folder in ("shards", "quarantine") for name in store.list(folder)]
    return {name: hashlib.sha256(store.read(name)).hexdigest() for name in names}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--kills", type=int, default=8, help="per seed")
    parser.add_argument("--rows", type=int, default=6400)
    parser.add_argument("--nodes-by", choices=("test-cluster", "ray-start"), default="test-cluster")
    parser.add_argument("--s3-faults", type=float, default=None, help="share of broken requests; output in S3")
    parser.add_argument("--log", type=Path)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="storm-job"))
    log: list[str] = []
    total: Counter[str] = Counter()
    try:
        with contextlib.ExitStack() as stack:
            base = ""
            if options.s3_faults is not None:
                url = stack.enter_context(moto_server(folder / "moto.log"))
                s3_client(url).create_bucket(Bucket="bucket")
                proxy = stack.enter_context(FaultyProxy(url, options.s3_faults, seed=options.seeds[0]))
                os.environ |= ENVIRONMENT | {"AWS_ENDPOINT_URL_S3": proxy.url}
                base = "s3://bucket/soak"
            job, reference = prepare(folder, options.rows)
            for seed in options.seeds:
                total += storm(job, reference, seed, options.kills, options.nodes_by, log, base)
            if base:
                log.append(f"faults of the store: {dict(proxy.faults)}")
    finally:
        log.append(f"{total.total()} kills in all: {dict(total)}")
        print(log[-1])
        if options.log:
            header = f"$ python -m tests.chaos.storm {' '.join(sys.argv[1:])}   # {time.strftime('%Y-%m-%d')}"
            with options.log.open("a", encoding="utf-8") as file:
                file.write("\n".join([header, *log]) + "\n\n")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
