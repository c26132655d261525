"""What the requests in flight may hold at the same time: their number, and the bytes of their bodies and answers.

A request takes a slot when its body has arrived, so a client that sends slowly holds none, and reserves what its answer
will take before any of it is computed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from augment_service.service.limits import LimitError
from augment_service.service.turns import Turns
from shared.errors import OverloadError

SMALL_BODY_BYTES = 65_536
"""A body up to this size is never refused for lack of memory: so much may wait on every open connection anyway."""
_SHORT_BODY_BYTES = 8_192
"""A body up to this size is parsed and measured in a tenth of a millisecond, and does not wait for a turn."""
_BODIES_SHARE = 4
"""The longer bodies together take at most this fraction of the budget, so that they cannot displace the answers."""
_RETRY_SECONDS = 1.0


@dataclass(slots=True)
class Ledger:
    """Bytes that are taken from a fixed number of bytes."""

    max_bytes: int
    taken: int = 0

    def take(self, num_bytes: int) -> None:
        """Raises OverloadError when fewer bytes are left."""
        if self.taken + num_bytes > self.max_bytes:
            raise OverloadError("the requests in flight take all the memory that is set aside for them", _RETRY_SECONDS)
        self.taken += num_bytes


@dataclass(slots=True, kw_only=True)
class Gate:
    """Admits requests. Use from one event loop.

    max_requests: requests with a slot. max_answer_bytes: of one request. memory_budget: bytes of all of them.
    """

    max_requests: int
    max_answer_bytes: int
    memory_budget: int
    num_admitted: int = 0
    bodies: Ledger = field(init=False)
    answers: Ledger = field(init=False)
    turns: Turns = field(init=False, default_factory=Turns)

    def __post_init__(self) -> None:
        self.bodies = Ledger(self.memory_budget // _BODIES_SHARE)
        self.answers = Ledger(self.memory_budget - self.bodies.max_bytes)

    def lease(self) -> Lease:
        """What one request holds: nothing yet."""
        return Lease(self)


@dataclass(slots=True)
class Lease:
    """What one request holds, until `release`. `body`: its body, once that has arrived."""

    gate: Gate
    body: bytes = b""
    has_slot: bool = False
    _has_turn: bool = False
    _body_bytes: int = 0
    _answer_bytes: int = 0

    def hold_body(self, num_bytes: int) -> None:
        """Account for a body of `num_bytes` so far. Raises OverloadError."""
        if num_bytes > SMALL_BODY_BYTES:
            self.gate.bodies.take(num_bytes - self._body_bytes)
            self._body_bytes = num_bytes

    async def take_turn(self) -> None:
        """Wait until the body may be parsed. Raises OverloadError."""
        if len(self.body) > _SHORT_BODY_BYTES:
            await self.gate.turns.take()
            self._has_turn = True

    def end_turn(self) -> None:
        """The body is parsed and measured."""
        if self._has_turn:
            self._has_turn = False
            self.gate.turns.end()

    def take_slot(self) -> None:
        """Raises OverloadError when as many requests as allowed have one."""
        if self.gate.num_admitted >= self.gate.max_requests:
            raise OverloadError(f"{self.gate.max_requests} requests are in flight; try again", _RETRY_SECONDS)
        self.gate.num_admitted += 1
        self.has_slot = True

    def reserve(self, *, answer_bytes: int, held_bytes: int) -> None:
        """Reserve what the answer is estimated to take: `held_bytes` in memory, for `answer_bytes` that are sent.

        Raises LimitError when the answer is too large for any request, OverloadError when it is too large for now.
        """
        gate = self.gate
        if answer_bytes > gate.max_answer_bytes:
            raise LimitError(
                f"the answer would take about {_megabytes(answer_bytes)}, and the limit is "
                f"{_megabytes(gate.max_answer_bytes)}; ask for fewer texts, samples or candidates at once",
                "/texts",
            )
        if held_bytes > gate.answers.max_bytes:
            raise LimitError(
                f"the request would take about {_megabytes(held_bytes)} of memory, and all requests together have "
                f"{_megabytes(gate.answers.max_bytes)}; ask for fewer texts, samples or candidates",
                "/texts",
            )
        gate.answers.take(held_bytes - self._answer_bytes)
        self._answer_bytes = held_bytes

    def grow(self, num_bytes: int) -> None:
        """Account for an answer that turns out larger than estimated. Raises LimitError, OverloadError."""
        if num_bytes > self._answer_bytes:
            self.reserve(answer_bytes=num_bytes, held_bytes=num_bytes)

    def release(self) -> None:
        """Give everything back."""
        self.end_turn()
        self.gate.num_admitted -= self.has_slot
        self.gate.bodies.taken -= self._body_bytes
        self.gate.answers.taken -= self._answer_bytes
        self.has_slot, self._body_bytes, self._answer_bytes = False, 0, 0


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.0f} MB" if num_bytes >= 10_000_000 else f"{num_bytes / 1e6:.1f} MB"
