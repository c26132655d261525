"""The scheduler under any order of answers, deaths and new actors; poison hunts; copies of slow shards."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augment_service.job.poison import PoisonHunt
from augment_service.job.scheduler import IN_FLIGHT_PER_ACTOR, Assignment, Scheduler
from augment_service.job.shard_work import ShardWork, positions
from shared.errors import ClusterError
from shared.inputs.rows import QuarantinedRow, SourceRow


@dataclass(eq=False)
class Work:
    shard: int
    rows: list[int] = field(default_factory=list)
    poison_found: list[int] = field(default_factory=list)

    @property
    def num_rows(self) -> int:
        return len(self.rows)

    def without(self, poison: set[int]) -> Work:
        kept = [row for index, row in enumerate(self.rows) if index not in poison]
        return Work(self.shard, kept, self.poison_found + [self.rows[index] for index in sorted(poison)])


def rows_of(assignment: Assignment[Work]) -> list[int]:
    """The rows that an actor works on."""
    rows, part = assignment.work.rows, assignment.part
    return rows if part is None else rows[part.start : part.stop]


class World:
    """Actors that answer in a random order, die at random, and always die on poison rows."""

    def __init__(self, num_shards: int, shard_rows: int, poison: set[int], seed: int) -> None:
        self.random, self.poison, self.now = random.Random(seed), poison, 0.0
        self.read = 0
        self.shard_rows = shard_rows
        self.scheduler = Scheduler(self._source(num_shards), lambda: self.now)
        self.queues: dict[str, list[Assignment[Work]]] = {}
        self.committed: dict[int, Work] = {}
        self.names = 0

    def _source(self, num_shards: int) -> Iterator[Work]:
        for shard in range(num_shards):
            self.read += 1
            yield Work(shard, list(range(shard * self.shard_rows, (shard + 1) * self.shard_rows)))

    def join(self) -> None:
        name = f"a{self.names}"
        self.names += 1
        self.queues[name] = []
        self.scheduler.add_actor(name)

    def give(self) -> None:
        for name, assignment in self.scheduler.assign_all():
            self.queues[name].append(assignment)
            assert len(self.queues[name]) <= IN_FLIGHT_PER_ACTOR
            assert all(one.part is None for one in self.queues[name]) or len(self.queues[name]) == 1
        # Back-pressure: the input is not read ahead of what is in flight, done, or held back by a hunt.
        assert self.read <= len(self.committed) + self.scheduler.in_flight + len(self.scheduler._hunted) + 8

    def step(self, death_rate: float) -> None:
        self.now += 1.0
        name = self.random.choice([name for name, queue in self.queues.items() if queue])
        assignment = self.queues[name][0]
        work = assignment.work
        if set(rows_of(assignment)) & self.poison or self.random.random() < death_rate:
            del self.queues[name]
            self.scheduler.lost(name, "killed")
            self.join()
            return
        self.queues[name].pop(0)
        if self.scheduler.done(name, assignment):
            assert assignment.part is None
            assert work.shard not in self.committed
            self.committed[work.shard] = work


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    num_shards=st.integers(1, 25),
    num_actors=st.integers(1, 5),
    poison=st.sets(st.integers(0, 25 * 20), max_size=3),
    death_rate=st.sampled_from([0.0, 0.02, 0.1]),
)
def test_every_shard_is_committed_once_and_exactly_the_poison_is_left_out(
    seed: int, num_shards: int, num_actors: int, poison: set[int], death_rate: float
) -> None:
    world = World(num_shards, 20, poison, seed)
    for _ in range(num_actors):
        world.join()
    for _ in range(20_000):
        world.give()
        if len(world.committed) == num_shards:
            break
        world.step(death_rate)
    assert sorted(world.committed) == list(range(num_shards))
    found = {row for work in world.committed.values() for row in work.poison_found}
    kept = {row for work in world.committed.values() for row in work.rows}
    assert found | kept == set(range(num_shards * 20))
    assert not kept & poison
    if death_rate == 0.0:
        assert found == poison & set(range(num_shards * 20))


def test_random_deaths_convict_no_innocent_row() -> None:
    accused = 0
    for seed in range(200):
        world = World(6, 20, set(), seed)
        world.join()
        for _ in range(5_000):
            world.give()
            if len(world.committed) == 6:
                break
            world.step(0.1)
        accused += sum(len(work.poison_found) for work in world.committed.values())
    # One step in ten is a death: three in a row on a single row have a probability of 1/1000 per row tried.
    assert accused <= 2


def test_a_hunt_costs_few_deaths() -> None:
    hunt, deaths = PoisonHunt(512), 0
    while not hunt.is_done:
        part = hunt.next_part()
        assert part is not None
        if 300 in part:
            hunt.died(part)
            deaths += 1
        else:
            hunt.survived(part)
    assert hunt.poison == {300}
    assert deaths <= 6


def test_where_everything_dies_no_row_is_convicted() -> None:
    hunt = PoisonHunt(16)
    for _ in range(200):
        part = hunt.next_part()
        assert part is not None
        hunt.died(part)
    assert not hunt.poison
    # The trouble ends: no row was to blame.
    while (part := hunt.next_part()) is not None:
        hunt.survived(part)
    assert hunt.is_done
    assert not hunt.poison


def test_the_last_shards_of_a_slow_actor_are_copied_and_the_first_commit_wins() -> None:
    world = World(5, 2, set(), 0)
    world.join()
    world.give()
    world.join()
    slow, fast = "a0", "a1"
    order = []
    for seconds in (0.6, 0.6, 0.6, 0.6, 10.0):
        world.give()
        if not world.queues[fast]:
            # Up to here, the shard on the slow actor has run for less than twice the average time.
            world.now += 10.0
            world.give()
        world.now += seconds
        assignment = world.queues[fast].pop(0)
        assert world.scheduler.done(fast, assignment)
        order.append(assignment.work.shard)
    # The shard that waited in the slow actor's queue was copied first, then the one that runs there.
    assert order == [2, 3, 4, 1, 0]
    running, waiting = world.queues[slow]
    assert not world.scheduler.done(slow, running)
    assert not world.scheduler.done(slow, waiting)
    assert world.scheduler.retries == {"speculative": 2}


def test_work_that_failed_because_of_lost_vectors_is_handed_out_again() -> None:
    world = World(2, 2, set(), 0)
    world.join()
    world.give()
    first = world.queues["a0"][0]
    world.scheduler.put_back("a0", first, "vectors_lost")
    again = world.scheduler.next_for("a0")
    assert again is not None
    assert again.work is first.work
    assert world.scheduler.retries == {"vectors_lost": 1}


def test_a_shard_that_kills_although_its_rows_alone_do_not_ends_the_run() -> None:
    world = World(1, 16, set(), 0)
    world.join()

    def play() -> None:
        while True:
            world.give()
            ((name, queue),) = world.queues.items()
            if queue[0].part is None:
                del world.queues[name]
                world.scheduler.lost(name, "out of memory")
                world.join()
            else:
                world.scheduler.done(name, queue.pop(0))

    with pytest.raises(ClusterError, match=r"each of its rows succeeded alone.*smaller --batch-tokens"):
        play()


def test_a_shard_whose_rows_are_all_in_quarantine_is_handed_out_again_however_often_its_actors_die() -> None:
    world = World(1, 0, set(), 0)
    for _ in range(5):
        world.join()
        world.give()
        ((name, queue),) = world.queues.items()
        assert queue[0].part is None
        del world.queues[name]
        world.scheduler.lost(name, "killed")
    world.join()
    world.give()
    world.step(0.0)
    assert sorted(world.committed) == [0]


def test_a_shard_is_not_lost_with_a_copy_that_has_run_since_before_its_hunt() -> None:
    now = 0.0
    scheduler = Scheduler(iter([Work(0, [0]), Work(1, [1])]), lambda: now)

    def join(actor: str) -> Assignment[Work]:
        scheduler.add_actor(actor)
        given = scheduler.next_for(actor)
        assert given is not None
        return given

    first = join("quick")
    slow = join("slow")
    now += 1.0
    scheduler.done("quick", first)
    scheduler.lost("quick", "killed")
    for name in ("b", "c", "d"):
        now += 10.0
        assert join(name).work is slow.work
        scheduler.lost(name, "killed")
    part = join("e")
    assert part.part == range(1)
    scheduler.done("e", part)
    assert scheduler.next_for("e") is not None
    # The copy handed out after the hunt and the one from before it both die: the shard must be handed out once more.
    scheduler.lost("e", "killed")
    scheduler.lost("slow", "killed")
    assert scheduler.done("f", join("f"))


def test_poison_is_quarantined_at_its_place_in_the_input() -> None:
    before = [QuarantinedRow(9, "x line 10", "empty line", "")]
    rows = [SourceRow(700 + place, f"text {place}") for place in (8, 10, 11)]
    work = ShardWork(2, 4, rows, before).without({1})
    assert positions(2, 4, before) == [8, 10, 11]
    assert [row.source_id for row in work.rows] == [708, 711]
    assert [(one.position, one.raw) for one in work.quarantined] == [(9, ""), (10, "text 10")]
    assert "died 3 times on this row alone" in work.quarantined[1].reason
