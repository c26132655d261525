"""Which shard goes to which actor (pure): bounded work in flight, retries with a bound, lost actors.

Shards go only to actors that answered a ready call: a replacement that never finds room is given nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from shared.errors import ClusterError


class HasShard(Protocol):
    """A unit of work that knows its shard number."""

    @property
    def shard(self) -> int:
        """Number of the shard."""
        ...


Work = TypeVar("Work", bound=HasShard)

MAX_ATTEMPTS = 4
IN_FLIGHT_PER_ACTOR = 2


class Scheduler(Generic[Work]):
    """Hands out work lazily; `source` is only read when an actor has room, so the input is never held as a whole."""

    def __init__(self, source: Iterator[Work]) -> None:
        self._source = source
        self._again: deque[Work] = deque()
        self._attempts: dict[int, int] = {}
        self._in_flight: dict[str, list[Work]] = {}

    def add_actor(self, actor: str) -> None:
        """An actor answered its ready call."""
        self._in_flight[actor] = []

    def next_for(self, actor: str) -> Work | None:
        """Work for an actor, or None when it has enough or nothing is left."""
        if len(self._in_flight[actor]) >= IN_FLIGHT_PER_ACTOR:
            return None
        work = self._again.popleft() if self._again else next(self._source, None)
        if work is not None:
            self._in_flight[actor].append(work)
        return work

    def done(self, actor: str, work: Work) -> None:
        """The work is committed."""
        self._in_flight[actor].remove(work)

    def lost(self, actor: str, reason: str) -> int:
        """The actor died: its work is handed out again; returns how many shards. Raises ClusterError at the bound."""
        lost = self._in_flight.pop(actor, [])
        for work in lost[:1]:
            # Only the first of an actor's queue was being worked on when it died.
            self._attempts[work.shard] = self._attempts.get(work.shard, 0) + 1
            if self._attempts[work.shard] >= MAX_ATTEMPTS:
                raise ClusterError(
                    f"shard {work.shard} lost its actor {MAX_ATTEMPTS} times; the last time: {reason}. "
                    "Less memory is needed with a smaller --batch-tokens or --shard-rows"
                )
        self._again.extendleft(reversed(lost))
        return len(lost)

    @property
    def actors(self) -> list[str]:
        """Living actors that are ready."""
        return list(self._in_flight)
