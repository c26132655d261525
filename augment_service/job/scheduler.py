"""Which shard goes to which actor (pure): bounded work in flight, retries, copies of the last shards, poison hunts.

Shards go only to actors that answered a ready call: a replacement that never finds room is given nothing. A shard may
run twice (its first actor is slow, or was lost after it had committed): the first commit wins and both are equal.
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
        """Rows that the engine gets."""
        ...

    def without(self, poison: set[int]) -> Self:
        """The shard with these of its rows in quarantine."""
        ...


Work = TypeVar("Work", bound=ShardLike)

IN_FLIGHT_PER_ACTOR = 2
LOSSES_BEFORE_HUNT = 3
MAX_HUNTS = 2
SLOW_FACTOR = 2.0
"""An idle actor copies a shard that runs this much longer than the average one did."""


@dataclass(eq=False, slots=True)
class Assignment(Generic[Work]):
    """Work given to an actor: a whole shard to commit, or (`part`) some of its rows to try, committing nothing."""

    work: Work
    began: float
    part: tuple[int, int] | None = None


class Scheduler(Generic[Work]):
    """Hands out work lazily; `source` is only read when an actor has room, so the input is never held as a whole."""

    def __init__(self, source: Iterator[Work], clock: Callable[[], float] = time.monotonic) -> None:
        self._source, self._clock = source, clock
        self._source_is_dry = False
        self._again: deque[Work] = deque()
        self._losses: dict[int, int] = {}
        self._hunts: dict[int, tuple[Work, PoisonHunt]] = {}
        self._num_hunts: dict[int, int] = {}
        self._cleared: dict[int, Work] = {}
        self._finished: set[int] = set()
        self._queues: dict[str, deque[Assignment[Work]]] = {}
        # Actors that could take more, kept so that an event costs the same for ten actors and for ten thousand.
        self._roomy: dict[str, None] = {}
        self._copies: dict[int, int] = {}
        self._num_done, self._seconds, self._next_look = 0, 0.0, 0.0
        self.retries: dict[str, int] = {}

    @property
    def actors(self) -> list[str]:
        """Living actors that are ready."""
        return list(self._queues)

    @property
    def in_flight(self) -> int:
        """Assignments that are out."""
        return sum(map(len, self._queues.values()))

    def add_actor(self, actor: str) -> None:
        """An actor answered its ready call."""
        self._queues[actor] = deque()
        self._roomy[actor] = None

    def next_for(self, actor: str) -> Assignment[Work] | None:
        """Work for an actor, or None when it has enough or nothing is left."""
        queue = self._queues[actor]
        if len(queue) >= IN_FLIGHT_PER_ACTOR or (queue and (queue[0].part or self._is_hunter(actor))):
            return None
        given = (self._next_part() if not queue else None) or self._next_shard()
        if given is None and not queue:
            given = self._copy_for(actor)
        if given is not None:
            if given.part is None:
                self._copies[given.work.shard] = self._copies.get(given.work.shard, 0) + 1
            queue.append(given)
            if len(queue) >= IN_FLIGHT_PER_ACTOR:
                self._roomy.pop(actor, None)
        return given

    def assign_all(self) -> Iterator[tuple[str, Assignment[Work]]]:
        """Work for every actor that could take more."""
        nothing_new = self._source_is_dry and not self._again and not self._hunts
        for actor in [one for one in self._roomy if not (nothing_new and self._queues[one])]:
            while (given := self.next_for(actor)) is not None:
                yield actor, given
            if not self._queues[actor] and self._source_is_dry:
                return  # what this idle actor did not get, the next one would not get either

    def done(self, actor: str, assignment: Assignment[Work]) -> bool:
        """The work was done; True when it is the first commit of its shard."""
        self._leave(actor, assignment)
        work = assignment.work
        if assignment.part is not None:
            hunt = self._hunts[work.shard][1]
            hunt.survived(assignment.part)
            self._end_hunt_if_done(work.shard)
            return False
        self._num_done += 1
        self._seconds += self._clock() - assignment.began
        if self._queues.get(actor):
            # The next one of the queue begins only now.
            self._queues[actor][0].began = self._clock()
        if work.shard in self._finished:
            return False
        self._finished.add(work.shard)
        self._losses.pop(work.shard, None)
        return True

    def put_back(self, actor: str, assignment: Assignment[Work], reason: str) -> None:
        """The work failed for a reason that is not its own, such as lost vectors: it is handed out again."""
        self._leave(actor, assignment)
        self._return(assignment, reason)

    def lost(self, actor: str, reason: str) -> int:
        """The actor died: its work is handed out again; returns how much. Raises ClusterError at the bound."""
        queue = self._queues.pop(actor, deque())
        self._roomy.pop(actor, None)
        for place, assignment in enumerate(queue):
            shard = assignment.work.shard
            if assignment.part is None:
                self._copies[shard] -= 1
            # Only the first of an actor's queue was being worked on when it died.
            if place > 0 or shard in self._finished:
                self._return(assignment, "actor_lost")
            elif assignment.part is not None:
                self._hunts[shard][1].died(assignment.part)
                self._count("poison_hunt")
                self._end_hunt_if_done(shard)
            else:
                self._count_loss(assignment, reason)
        return len(queue)

    def is_finished(self, shard: int) -> bool:
        """Whether a commit of the shard was reported."""
        return shard in self._finished

    def _next_shard(self) -> Assignment[Work] | None:
        while self._again:
            work = self._again.popleft()
            if work.shard not in self._finished:
                return Assignment(work, self._clock())
        work_or_none = None if self._source_is_dry else next(self._source, None)
        if work_or_none is None:
            self._source_is_dry = True
            return None
        return Assignment(work_or_none, self._clock())

    def _next_part(self) -> Assignment[Work] | None:
        for work, hunt in self._hunts.values():
            part = hunt.next_part()
            if part is not None:
                return Assignment(work, self._clock(), part)
        return None

    def _is_hunter(self, actor: str) -> bool:
        """The oldest actor empties its queue when parts wait: a part may kill its actor, so it is tried alone."""
        return actor == next(iter(self._queues)) and any(hunt.has_parts for _, hunt in self._hunts.values())

    def _copy_for(self, actor: str) -> Assignment[Work] | None:
        """A copy of the shard that waits or runs the longest elsewhere, once nothing else is left."""
        now, average = self._clock(), self._seconds / max(self._num_done, 1)
        if now < self._next_look:
            return None
        best: tuple[float, Assignment[Work]] | None = None
        for other, queue in self._queues.items():
            for place, one in enumerate(queue):
                shard = one.work.shard
                is_copied = self._copies.get(shard, 0) > 1 or shard in self._finished or self._is_outdated(one)
                if other == actor or one.part or is_copied:
                    continue
                # What waits behind another shard can only gain; what runs gets the time of SLOW_FACTOR shards.
                waited = now - one.began + (average * SLOW_FACTOR if place else 0.0)
                is_worth_it = place > 0 or (self._num_done and waited > average * SLOW_FACTOR)
                if is_worth_it and (best is None or waited > best[0]):
                    best = (waited, one)
        if best is None:
            # Looking through all that is in flight is dear; nothing gets slow within a tenth of a shard's time.
            self._next_look = now + average / 10
            return None
        self._count("speculative")
        return Assignment(best[1].work, now)

    def _count_loss(self, assignment: Assignment[Work], reason: str) -> None:
        shard = assignment.work.shard
        if not self._is_outdated(assignment):
            self._losses[shard] = self._losses.get(shard, 0) + 1
        if self._losses.get(shard, 0) < LOSSES_BEFORE_HUNT:
            self._return(assignment, "actor_lost")
            return
        self._num_hunts[shard] = self._num_hunts.get(shard, 0) + 1
        if self._num_hunts[shard] > MAX_HUNTS:
            raise ClusterError(
                f"shard {shard} lost its actor again and again, though each of its rows alone went well; the last: "
                f"{reason}. Less memory is needed with a smaller --batch-tokens or --shard-rows"
            )
        self._losses[shard] = 0
        self._hunts[shard] = (assignment.work, PoisonHunt(assignment.work.num_rows))

    def _end_hunt_if_done(self, shard: int) -> None:
        work, hunt = self._hunts[shard]
        if hunt.is_done:
            del self._hunts[shard]
            self._cleared[shard] = work.without(hunt.poison)
            self._again.appendleft(self._cleared[shard])

    def _is_outdated(self, assignment: Assignment[Work]) -> bool:
        """Whether a hunt has taken the shard over since this copy of it was given out."""
        shard = assignment.work.shard
        return shard in self._hunts or self._cleared.get(shard, assignment.work) is not assignment.work

    def _return(self, assignment: Assignment[Work], reason: str) -> None:
        shard = assignment.work.shard
        if assignment.part is not None:
            self._hunts[shard][1].put_back(assignment.part)
        elif shard not in self._finished and not self._copies.get(shard) and not self._is_outdated(assignment):
            self._again.appendleft(assignment.work)
        else:
            return
        self._count(reason)

    def _leave(self, actor: str, assignment: Assignment[Work]) -> None:
        self._queues[actor].remove(assignment)
        self._roomy[actor] = None
        if assignment.part is None:
            self._copies[assignment.work.shard] -= 1

    def _count(self, reason: str) -> None:
        self.retries[reason] = self.retries.get(reason, 0) + 1
