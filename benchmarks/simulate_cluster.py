"""The real scheduler in a simulated cluster of 1,000 actors: its overhead, and where it would saturate.

A STUB replaces the masked LM: a shard takes a random number of simulated seconds and nothing is computed. The scheduler
and the poison hunt are the job's own. For benchmarks only.

    python benchmarks/simulate_cluster.py --actors 1000 --shards 100000
"""

from __future__ import annotations

import argparse
import functools
import heapq
import random
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from augment_service.job.scheduler import Assignment, Scheduler

ACTORS_PER_NODE = 8
SHARD_ROWS = 512
Result = TypeVar("Result")


@dataclass(eq=False, slots=True)
class StubWork:
    """A shard without rows; those with an index in `poison` would kill their actor."""

    shard: int
    poison: frozenset[int]
    num_rows: int = SHARD_ROWS

    def without(self, poison: set[int]) -> StubWork:
        """The shard without these rows."""
        return StubWork(self.shard, self.poison - poison, self.num_rows - len(poison))


class StubCluster:
    """Nodes of eight actors. One node in twenty is four times slower, a fifth join late, and every node is lost and
    replaced at some time."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.random, self.now = options, random.Random(options.seed), 0.0
        poisoned = {self.random.randrange(options.shards) for _ in range(options.poison)}
        self.scheduler = Scheduler(self._source(poisoned), lambda: self.now)
        self.events: list[tuple[float, int, str, str]] = []
        self.queues: dict[str, deque[Assignment[StubWork]]] = {}
        self.speed: dict[str, float] = {}
        self.number = self.committed = self.num_events = self.deaths = self.read = 0
        self.busy_seconds = self.alive_seconds = self.scheduler_seconds = 0.0
        self.joined: dict[str, float] = {}

    def _source(self, poisoned: set[int]) -> Iterator[StubWork]:
        for shard in range(self.options.shards):
            self.read += 1
            yield StubWork(shard, frozenset({7}) if shard in poisoned else frozenset())

    def at(self, delay: float, kind: str, subject: str) -> None:
        """Schedule an event."""
        self.number += 1
        heapq.heappush(self.events, (self.now + delay, self.number, kind, subject))

    def run(self) -> None:
        """Run until every shard is committed."""
        nodes = self.options.actors // ACTORS_PER_NODE
        for node in range(nodes):
            late = self.random.uniform(0, 3600) if node % 5 == 4 else 0.0
            self.at(late + self.random.uniform(20, 60), "join", str(node))
        while self.committed < self.options.shards:
            self.now, _, kind, subject = heapq.heappop(self.events)
            self.num_events += 1
            getattr(self, f"_{kind}")(subject)

    def _join(self, node: str) -> None:
        slow = self.random.random() < 0.05
        for place in range(ACTORS_PER_NODE):
            self.number += 1
            name = f"{node}/{place}/{self.number}"
            self.queues[name], self.speed[name] = deque(), 4.0 if slow else 1.0
            self.joined[name] = self.now
            self._timed(functools.partial(self.scheduler.add_actor, name))
        self.at(self.random.expovariate(1 / (self.options.node_hours * 3600)), "lose", node)
        self._assign()

    def _lose(self, node: str) -> None:
        for name in [one for one in self.queues if one.startswith(f"{node}/")]:
            self._kill(name)
        self.at(self.random.uniform(60, 240), "join", node)
        self._assign()

    def _kill(self, name: str) -> None:
        self.deaths += 1
        self.alive_seconds += self.now - self.joined[name]
        del self.queues[name]
        self._timed(lambda: self.scheduler.lost(name, "simulated"))

    def _finish(self, name: str) -> None:
        queue = self.queues.get(name)
        if queue is None:
            return
        assignment = queue.popleft()
        rows = assignment.part or range(assignment.work.num_rows)
        if any(row in rows for row in assignment.work.poison):
            queue.appendleft(assignment)
            self._kill(name)
            self.number += 1
            again = f"{name.split('/')[0]}/p/{self.number}"
            self.queues[again], self.speed[again], self.joined[again] = deque(), 1.0, self.now
            self.scheduler.add_actor(again)
        elif self._timed(lambda: self.scheduler.done(name, assignment)):
            self.committed += 1
        if queue and name in self.queues:
            self._begin(name)
        self._assign()

    def _assign(self) -> None:
        for name, assignment in self._timed(lambda: list(self.scheduler.assign_all())):
            self.queues[name].append(assignment)
            if len(self.queues[name]) == 1:
                self._begin(name)

    def _begin(self, name: str) -> None:
        part = self.queues[name][0].part
        share = len(part) / SHARD_ROWS if part else 1.0
        seconds = self.random.lognormvariate(0, 0.25) * self.options.shard_seconds * self.speed[name] * share
        self.busy_seconds += seconds
        self.at(seconds, "finish", name)

    def _timed(self, call: Callable[[], Result]) -> Result:
        began = time.perf_counter()
        result = call()
        self.scheduler_seconds += time.perf_counter() - began
        return result


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actors", type=int, default=1000)
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--shard-seconds", type=float, default=20.0, help="simulated, for a fast actor")
    parser.add_argument("--node-hours", type=float, default=4.0, help="simulated mean lifetime of a node")
    parser.add_argument("--poison", type=int, default=3, help="number of shards with a row that kills its actor")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    cluster = StubCluster(options)
    began = time.perf_counter()
    cluster.run()
    seconds = time.perf_counter() - began
    alive = cluster.alive_seconds + sum(cluster.now - cluster.joined[name] for name in cluster.queues)
    ideal = options.shards * options.shard_seconds * 1.03 / options.actors
    per_shard = cluster.scheduler_seconds / options.shards
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{options.actors} actors, {options.shards:,} shards of {options.shard_seconds:.0f} s: "
        f"{cluster.num_events:,} events, {cluster.deaths} actors died, handed out again {cluster.scheduler.retries}\n"
        f"simulated end {cluster.now / 60:.1f} min ({ideal / 60:.1f} if all actors were fast and alive throughout); "
        f"actors worked {cluster.busy_seconds / alive:.1%} of their lifetime\n"
        f"scheduler {cluster.scheduler_seconds:.1f} s of CPU, {per_shard * 1e6:.0f} us per shard: alone it would keep "
        f"up with {1 / per_shard:,.0f} shards/s; whole simulation {seconds:.1f} s, peak memory {peak:.0f} MiB"
    )


if __name__ == "__main__":
    main()
