"""The scheduler in any sequence of events: a hypothesis state machine that plays the actors and the clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from augment_service.job.scheduler import IN_FLIGHT_PER_ACTOR, MAX_COPIES, Assignment, Scheduler
from shared.errors import ClusterError
from tests.unit.augment_service.job.test_scheduler import Work, rows_of

MAX_ACTORS = 6
places = st.integers(0, MAX_ACTORS - 1)


class SchedulerMachine(RuleBasedStateMachine):
    """Every shard is committed exactly once, or the run ends with an error that names it.

    `queues` is what the actors were given, `error` the ClusterError that ended the run.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.queues: dict[str, list[Assignment[Work]]] = {}
        self.committed: dict[int, Work] = {}
        self.error: ClusterError | None = None
        self.num_joined = 0

    @initialize(
        num_shards=st.integers(0, 4), shard_rows=st.integers(1, 3), poison=st.sets(st.integers(0, 11), max_size=2)
    )
    def start(self, num_shards: int, shard_rows: int, poison: set[int]) -> None:
        self.num_shards, self.shard_rows = num_shards, shard_rows
        # A hunt convicts no row where all of them kill; the actor pool's bound on deaths ends such a run.
        self.poison = {row for row in poison if (row + 1) % shard_rows or shard_rows == 1}
        self.scheduler = Scheduler(self.source(), lambda: self.now)
        self.join()

    def source(self) -> Iterator[Work]:
        for shard in range(self.num_shards):
            yield Work(shard, list(range(shard * self.shard_rows, (shard + 1) * self.shard_rows)))

    @precondition(lambda self: not self.error and len(self.queues) < MAX_ACTORS)
    @rule()
    def join(self) -> None:
        name = f"actor-{self.num_joined}"
        self.num_joined += 1
        self.queues[name] = []
        self.scheduler.add_actor(name)

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0]))
    def wait(self, seconds: float) -> None:
        """Time passes; the only thing that happens after the run has ended."""
        self.now += seconds

    @precondition(lambda self: not self.error)
    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 10.0]))
    def assign(self, seconds: float) -> None:
        self.now += seconds
        for name, assignment in self.scheduler.assign_all():
            assert name in self.queues, "work for a dead actor"
            assert not (assignment.part is None and assignment.state.is_finished), "a committed shard again"
            self.queues[name].append(assignment)

    @precondition(lambda self: not self.error and self.busy())
    @rule(place=places, seconds=st.sampled_from([0.1, 1.0, 10.0]))
    def answer(self, place: int, seconds: float) -> None:
        name = self.busy()[place % len(self.busy())]
        assignment = self.queues[name][0]
        self.now += seconds
        if set(rows_of(assignment)) & self.poison:
            self.kill(name)
            return
        self.queues[name].pop(0)
        work = assignment.work
        is_first = self.scheduler.done(name, assignment)
        assert is_first == (assignment.part is None and work.shard not in self.committed)
        if is_first:
            self.committed[work.shard] = work

    @precondition(lambda self: not self.error and self.queues)
    @rule(place=places)
    def die(self, place: int) -> None:
        self.kill(list(self.queues)[place % len(self.queues)])

    @precondition(lambda self: not self.error and len(self.queues) < MAX_ACTORS)
    @rule(count=st.integers(1, 3))
    def newcomers_die(self, count: int) -> None:
        """Several deaths in a row on the same work, while other actors are slow: what starts a hunt."""
        for _ in range(count):
            if not self.error:
                self.join()
                self.assign(10.0)
                self.kill(list(self.queues)[-1])

    @precondition(lambda self: not self.error and self.busy())
    @rule(place=places)
    def fail(self, place: int) -> None:
        name = self.busy()[place % len(self.busy())]
        self.scheduler.put_back(name, self.queues[name].pop(0), "vectors_lost")

    @precondition(lambda self: not self.error and self.busy())
    @rule()
    def replace_the_one_that_hangs(self) -> None:
        found = self.scheduler.longest()
        assert found is not None
        name, seconds = found
        begun = [self.now - queue[0].began for queue in self.queues.values() if queue]
        assert seconds == max(begun) >= 0
        self.kill(name)

    def busy(self) -> list[str]:
        return [name for name, queue in self.queues.items() if queue]

    def kill(self, name: str) -> None:
        queue = self.queues.pop(name)
        try:
            assert self.scheduler.lost(name, "killed") == len(queue)
        except ClusterError as error:
            self.error = error
        if self.error:
            assert f"shard {queue[0].work.shard} keeps losing its actor" in str(self.error)
            assert queue[0].part is None

    @invariant()
    def queues_are_bounded_and_parts_are_tried_alone(self) -> None:
        for queue in self.queues.values():
            assert len(queue) <= IN_FLIGHT_PER_ACTOR
            assert len(queue) == 1 or all(one.part is None for one in queue)

    @invariant()
    def no_shard_has_more_copies_than_allowed(self) -> None:
        given = [one for queue in self.queues.values() for one in queue]
        copies = Counter(one.work.shard for one in given if one.part is None and not one.is_outdated)
        assert all(count <= MAX_COPIES for count in copies.values())
        if not self.error:
            for one in given:
                assert one.is_outdated or one.part or one.state.copies == copies[one.work.shard]

    def teardown(self) -> None:
        """From here on only poison kills, and one actor finishes the run."""
        for _ in range(2000):
            if self.error or not hasattr(self, "scheduler") or len(self.committed) == self.num_shards:
                break
            if not self.queues:
                self.join()
            self.assign(10.0)
            if self.busy():
                self.answer(0, 1.0)
        if self.error or not hasattr(self, "scheduler"):
            return
        assert sorted(self.committed) == list(range(self.num_shards)), "shards were lost"
        for shard, work in self.committed.items():
            rows = range(shard * self.shard_rows, (shard + 1) * self.shard_rows)
            assert sorted(work.rows + work.poison_found) == list(rows)
            assert not set(work.rows) & self.poison


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(
    max_examples=100, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.filter_too_much]
)
