"""Assigns shards to actors (pure): bounded work in flight, retries, speculative copies, poison hunts.

Only actors that have loaded get work, so a replacement that is never placed delays nothing. A shard may run twice if
its first actor is slow or was lost after committing. The first commit wins; both are identical.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

from augment_service.job.poison import PoisonHunt
from shared.errors import ClusterError


class ShardLike(Protocol):
    """A unit of work: a shard with rows, some of which may turn out to be poison."""

    @property
    def shard(self) -> int:
        """Number of the shard."""
        ...

    @property
    def num_rows(self) -> int:
        """Rows for the engine, not counting those already in quarantine."""
        ...

    def without(self, poison: set[int]) -> Self:
        """The shard with these rows (by index) moved to quarantine."""
        ...


Work = TypeVar("Work", bound=ShardLike)

IN_FLIGHT_PER_ACTOR = 2
LOSSES_BEFORE_HUNT = 3
MAX_HUNTS = 2
MAX_COPIES = 2
STALLED_FACTOR, FIRST_FACTOR = 20.0, 6.0
"""A shard stalls when it takes this many times the average or, until a first shard is done, this many times the minimum
stall time."""
SLOW_FACTOR = 2.0
"""An idle actor copies a shard that has run this many times as long as the average."""


@dataclass(eq=False, slots=True)
class ShardState(Generic[Work]):
    """State of a shard that was read from the source.

    No table holds the states: only queues and assignments refer to them, so a finished shard takes no memory. `work` is
    the shard as it is to be computed now: a hunt replaces it with one without the poison rows. `copies` counts the
    assignments of this `work` in flight, `losses` the actors that died working on it.
    """

    work: Work
    copies: int = 0
    losses: int = 0
    num_hunts: int = 0
    hunt: PoisonHunt | None = None
    is_finished: bool = False


@dataclass(eq=False, slots=True, kw_only=True)
class Assignment(Generic[Work]):
    """Work given to an actor: a whole shard to commit or, with `part`, a range of its rows to try without committing.

    began: when the actor started on it, by the scheduler's clock. num_hunts: hunts in the shard up to then.
    """

    state: ShardState[Work]
    work: Work
    num_hunts: int
    began: float
    part: range | None = None

    @property
    def is_outdated(self) -> bool:
        """Whether a hunt has since taken over the shard. A result still counts, but a failure needs no retry."""
        return self.num_hunts != self.state.num_hunts


class Scheduler(Generic[Work]):
    """Assigns work lazily: `source` is read only when an actor has room, so the whole input is never in memory.

    The cost of an event does not grow with the number of shards or actors, except at the end of a run, when idle actors
    look for shards to copy. `retries` counts reassignments by reason.
    """

    def __init__(self, source: Iterator[Work], clock: Callable[[], float] = time.monotonic) -> None:
        self._source, self._clock = source, clock
        self._source_is_exhausted = False
        self._again: deque[ShardState[Work]] = deque()
        self._hunted: list[ShardState[Work]] = []
        self._queues: dict[str, deque[Assignment[Work]]] = {}
        # Actors with room for more work; avoids a scan over all actors.
        self._roomy: dict[str, None] = {}
        self._num_done, self._seconds, self._next_look = 0, 0.0, 0.0
        self.retries: dict[str, int] = {}

    @property
    def in_flight(self) -> int:
        """Number of unfinished assignments."""
        return sum(map(len, self._queues.values()))

    @property
    def is_dry(self) -> bool:
        """Whether no more work can follow: the source is exhausted, and nothing is in flight or queued."""
        return self._source_is_exhausted and not (self._again or self._hunted or self.in_flight)

    def add_actor(self, actor: str) -> None:
        """An actor became ready."""
        self._queues[actor] = deque()
        self._roomy[actor] = None

    def next_for(self, actor: str) -> Assignment[Work] | None:
        """Work for an actor, or None if it has enough or nothing is left."""
        queue = self._queues[actor]
        if len(queue) >= IN_FLIGHT_PER_ACTOR or (queue and (queue[0].part or self._is_hunter(actor))):
            return None
        given = (self._next_part() if not queue else None) or self._next_shard()
        if given is None and not queue:
            given = self._copy_for(actor)
        if given is not None:
            if given.part is None:
                given.state.copies += 1
            queue.append(given)
            if len(queue) >= IN_FLIGHT_PER_ACTOR:
                self._roomy.pop(actor, None)
        return given

    def assign_all(self) -> Iterator[tuple[str, Assignment[Work]]]:
        """Work for every actor with room for more, as (actor, assignment)."""
        nothing_new = self._source_is_exhausted and not self._again and not self._hunted
        for actor in [one for one in self._roomy if not (nothing_new and self._queues[one])]:
            while (given := self.next_for(actor)) is not None:
                yield actor, given
            if not self._queues[actor] and self._source_is_exhausted:
                return  # if this idle actor gets nothing, neither do the others

    def done(self, actor: str, assignment: Assignment[Work]) -> bool:
        """The work has finished; True if it is the first commit of its shard."""
        self._leave(actor, assignment)
        state, now = assignment.state, self._clock()
        if assignment.part is not None:
            _hunt_in(state).survived(assignment.part)
            self._end_hunt_if_done(state)
            return False
        self._num_done += 1
        self._seconds += now - assignment.began
        is_first = not state.is_finished
        state.is_finished = True
        return is_first

    def put_back(self, actor: str, assignment: Assignment[Work], reason: str) -> None:
        """The work failed for an external reason, such as lost vectors: queue it again."""
        self._leave(actor, assignment)
        self._return(assignment, reason)

    def stall_limit(self, at_least: float) -> float:
        """Seconds after which a shard counts as stalled. at_least: lower bound."""
        if not self._num_done:
            return at_least * FIRST_FACTOR
        return max(at_least, self._seconds / self._num_done * STALLED_FACTOR)

    def longest(self) -> tuple[str, float] | None:
        """The actor that has worked longest on its current shard or part, and the seconds so far."""
        now = self._clock()
        running = [(now - queue[0].began, actor) for actor, queue in self._queues.items() if queue]
        if not running:
            return None
        seconds, actor = max(running)
        return actor, seconds

    def lost(self, actor: str, reason: str, kind: str = "actor_lost") -> int:
        """The actor died: queue its work again; returns the number of its assignments (0 if it was never ready).

        kind: the reason under which `retries` counts it. Raises ClusterError when a shard keeps losing its actors
        although each of its rows alone is fine.
        """
        queue = self._queues.pop(actor, deque())
        self._roomy.pop(actor, None)
        for place, assignment in enumerate(queue):
            state = assignment.state
            self._release(assignment)
            # Only the first in the actor's queue was in progress when it died.
            if place > 0 or state.is_finished:
                self._return(assignment, kind)
            elif assignment.part is not None:
                _hunt_in(state).died(assignment.part)
                self._count("poison_hunt")
                self._end_hunt_if_done(state)
            else:
                self._count_loss(assignment, reason, kind)
        return len(queue)

    def _next_shard(self) -> Assignment[Work] | None:
        while self._again:
            state = self._again.popleft()
            if not state.is_finished:
                return self._assignment(state)
        work = None if self._source_is_exhausted else next(self._source, None)
        if work is None:
            self._source_is_exhausted = True
            return None
        return self._assignment(ShardState(work))

    def _next_part(self) -> Assignment[Work] | None:
        for state in self._hunted:
            part = _hunt_in(state).next_part()
            if part is not None:
                return self._assignment(state, part)
        return None

    def _assignment(self, state: ShardState[Work], part: range | None = None) -> Assignment[Work]:
        return Assignment(state=state, work=state.work, num_hunts=state.num_hunts, began=self._clock(), part=part)

    def _is_hunter(self, actor: str) -> bool:
        """When parts are queued, the oldest actor drains its queue: a part may kill its actor, so it is tried alone."""
        return actor == next(iter(self._queues)) and any(_hunt_in(state).has_parts for state in self._hunted)

    def _copy_for(self, actor: str) -> Assignment[Work] | None:
        """A copy of the shard that has been queued or running longest elsewhere, once nothing else is left."""
        now, average = self._clock(), self._seconds / max(self._num_done, 1)
        if now < self._next_look:
            return None
        longest, slowest = 0.0, None
        for other, queue in self._queues.items():
            for place, one in enumerate(queue):
                if other == actor or not _may_be_copied(one):
                    continue
                # Copying a shard queued behind another always pays off; one already running must be slow.
                waited = now - one.began + (average * SLOW_FACTOR if place else 0.0)
                is_worth_it = place > 0 or (self._num_done and waited > average * SLOW_FACTOR)
                if is_worth_it and (slowest is None or waited > longest):
                    longest, slowest = waited, one
        if slowest is None:
            # Scanning everything in flight is expensive, and little changes in a tenth of a shard's time.
            self._next_look = now + average / 10
            return None
        self._count("speculative")
        return self._assignment(slowest.state)

    def _count_loss(self, assignment: Assignment[Work], reason: str, kind: str) -> None:
        state = assignment.state
        if not assignment.is_outdated:
            state.losses += 1
        if state.losses < LOSSES_BEFORE_HUNT:
            self._return(assignment, kind)
            return
        if state.num_hunts == MAX_HUNTS:
            raise ClusterError(
                f"shard {state.work.shard} keeps losing its actor, although each of its rows succeeded alone; the last "
                f"reason: {reason}. If memory runs out, use a smaller --batch-tokens or --shard-rows"
            )
        # Copies still running are outdated from here on: they count neither as copies nor as losses.
        state.copies = state.losses = 0
        state.num_hunts += 1
        state.hunt = PoisonHunt(state.work.num_rows)
        self._hunted.append(state)
        # A shard whose rows are all in quarantine has no part to try.
        self._end_hunt_if_done(state)

    def _end_hunt_if_done(self, state: ShardState[Work]) -> None:
        hunt = _hunt_in(state)
        if hunt.is_done:
            state.work, state.hunt = state.work.without(hunt.poison), None
            self._hunted.remove(state)
            self._again.appendleft(state)

    def _return(self, assignment: Assignment[Work], reason: str) -> None:
        state = assignment.state
        if assignment.part is not None:
            _hunt_in(state).put_back(assignment.part)
        elif state.is_finished or state.copies or assignment.is_outdated:
            return
        else:
            self._again.appendleft(state)
        self._count(reason)

    def _leave(self, actor: str, assignment: Assignment[Work]) -> None:
        queue = self._queues[actor]
        was_first = queue[0] is assignment
        queue.remove(assignment)
        if queue and was_first:
            # The next in the queue starts only now.
            queue[0].began = self._clock()
        self._roomy[actor] = None
        self._release(assignment)

    def _release(self, assignment: Assignment[Work]) -> None:
        if assignment.part is None and not assignment.is_outdated:
            assignment.state.copies -= 1

    def _count(self, reason: str) -> None:
        self.retries[reason] = self.retries.get(reason, 0) + 1


def _hunt_in(state: ShardState[Work]) -> PoisonHunt:
    assert state.hunt is not None, "a hunt goes on as long as one of its parts is in flight"
    return state.hunt


def _may_be_copied(one: Assignment[Work]) -> bool:
    state = one.state
    return not (one.part or one.is_outdated or state.is_finished or state.copies >= MAX_COPIES)
