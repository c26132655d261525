"""Actors that hang are found by the scheduler's clock alone."""

from __future__ import annotations

from dataclasses import dataclass, field

from augment_service.job.scheduler import FIRST_FACTOR, STALLED_FACTOR, Scheduler
from augment_service.job.stalls import AWAY_SECONDS, FIRST_LOAD_FACTOR, SHOWN_FROM, LoadWatch, StallWatch
from tests.unit.augment_service.job.test_scheduler import Work

FLOOR = 600.0


@dataclass
class World:
    """One actor, many shards of one row, and a clock that the driver looks at every few seconds."""

    now: float = 0.0
    scheduler: Scheduler[Work] = field(init=False)

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(iter([Work(shard, [shard]) for shard in range(100)]), lambda: self.now)
        self.watch = StallWatch(self.scheduler, FLOOR, lambda: self.now)
        self.scheduler.add_actor("a")

    def work(self, seconds: float) -> None:
        """One shard that takes this long."""
        given = [*self.scheduler._queues["a"]] or [one for _, one in self.scheduler.assign_all()]
        assert self.look(seconds) is None
        self.scheduler.done("a", given[0])
        self.watch.progressed()

    def look(self, seconds: float) -> tuple[str, float] | None:
        """Let time pass; the first actor that is found to hang."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(self.now + 5.0, until)
            if found := self.watch.look():
                return found
        return None


def test_a_shard_may_take_the_floor_or_twenty_times_the_average_and_no_longer() -> None:
    for seconds in (1.0, 100.0):
        world = World()
        for _ in range(3):
            world.work(seconds)
        limit = max(FLOOR, STALLED_FACTOR * seconds)
        list(world.scheduler.assign_all())
        assert world.look(limit * SHOWN_FROM - 10) is None
        assert world.watch.stalled_seconds() == 0.0
        assert world.look(limit * (1 - SHOWN_FROM)) is None
        assert world.watch.stalled_seconds() > limit * SHOWN_FROM
        found = world.look(20.0)
        assert found is not None
        assert found[0] == "a"
        assert limit < found[1] <= limit + 10


def test_the_first_shard_of_a_slow_job_gets_six_times_as_long() -> None:
    world = World()
    world.work(FLOOR * FIRST_FACTOR - 10)
    world = World()
    list(world.scheduler.assign_all())
    assert world.look(FLOOR * FIRST_FACTOR + 10) is not None


def test_the_time_that_a_shard_waits_behind_another_does_not_count() -> None:
    world = World()
    for _ in range(3):
        world.work(1.0)
    given = [one for _, one in world.scheduler.assign_all()]
    first, second = world.scheduler._queues["a"]
    assert given
    assert world.look(FLOOR - 10) is None
    world.scheduler.put_back("a", first, "store")
    assert world.look(FLOOR - 10) is None
    world.scheduler.done("a", second)


def test_a_pause_of_the_driver_is_not_taken_for_one_of_the_actors() -> None:
    world = World()
    for _ in range(3):
        world.work(1.0)
    list(world.scheduler.assign_all())
    world.now += 100 * FLOOR
    assert world.watch.look() is None
    assert world.look(AWAY_SECONDS - 5) is None
    assert world.look(20.0) is not None


def test_time_without_work_is_no_stall() -> None:
    world = World()
    world.work(1.0)
    for _, one in [*world.scheduler.assign_all()]:
        world.scheduler.put_back("a", one, "store")
    while world.scheduler._queues["a"]:
        world.scheduler.put_back("a", world.scheduler._queues["a"][0], "store")
    assert world.look(10 * FLOOR) is None
    assert world.watch.stalled_seconds() == 0.0


def test_a_stalled_actor_is_counted_as_one() -> None:
    world = World()
    list(world.scheduler.assign_all())
    world.scheduler.lost("a", "hangs", "stalled")
    assert set(world.scheduler.retries) == {"stalled"}


def test_a_load_may_take_its_time_and_no_longer() -> None:
    now = 0.0
    watch: LoadWatch[str] = LoadWatch(FLOOR, lambda: now)

    def overdue_after(seconds: float) -> list[str]:
        nonlocal now
        until = now + seconds
        while now < until:
            now = min(now + 5.0, until)
            if found := watch.look():
                return [name for name, _ in found]
        return []

    watch.began("first")
    assert overdue_after(FLOOR * FIRST_LOAD_FACTOR) == []
    assert overdue_after(10.0) == ["first"]
    watch.ended("first", is_done=False)
    assert overdue_after(10 * FLOOR) == []
    watch.began("second")
    assert overdue_after(100.0) == []
    watch.ended("second", is_done=True)
    watch.began("third")
    watch.began("fourth")
    assert overdue_after(STALLED_FACTOR * 100.0) == []
    assert overdue_after(10.0) == ["third", "fourth"]


def test_a_pause_of_the_driver_is_not_taken_for_one_of_a_load() -> None:
    now = 0.0
    watch: LoadWatch[str] = LoadWatch(FLOOR, lambda: now)
    watch.began("a")
    now = 100 * FLOOR
    assert watch.look() == []
    now += AWAY_SECONDS
    assert [name for name, _ in watch.look()] == ["a"]
