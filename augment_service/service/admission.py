"""Admission control: limits on the number of requests in flight and on the bytes of their bodies and answers.

A request takes a slot once its body has arrived, so a slow client holds none, and reserves memory for its answer before
any of it is computed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from augment_service.service.limits import LimitError
from augment_service.service.turns import Turns
from shared.errors import OverloadError

SMALL_BODY_BYTES = 65_536
"""A body up to this size is never refused for lack of memory: every open connection may buffer that much anyway."""
_SHORT_BODY_BYTES = 8_192
"""A body up to this size takes 0.1 ms to parse and measure, and does not wait for a turn."""
_BODIES_SHARE = 4
"""The budget divided by this is the limit for all longer bodies together, so that they cannot crowd out the answers."""
_RETRY_SECONDS = 1.0


@dataclass(slots=True)
class Ledger:
    """A fixed budget of bytes, and how many of them are taken."""

    max_bytes: int
    taken: int = 0

    def take(self, num_bytes: int) -> None:
        """Reserve bytes. Raises OverloadError when fewer are left."""
        if self.taken + num_bytes > self.max_bytes:
            raise OverloadError(
                "the requests in flight use all the memory set aside for them; try again", _RETRY_SECONDS
            )
        self.taken += num_bytes


@dataclass(slots=True, kw_only=True)
class Gate:
    """Admits requests. Use from one event loop.

    max_requests: requests with a slot. max_answer_bytes: per request. memory_budget: bytes over all requests.
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
        """A new, empty lease for one request."""
        return Lease(self)


@dataclass(slots=True)
class Lease:
    """The slot and bytes that one request holds until `release`. `body`: its body, once it has arrived."""

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
        """Give up the turn: the body has been parsed and measured."""
        if self._has_turn:
            self._has_turn = False
            self.gate.turns.end()

    def take_slot(self) -> None:
        """Take a slot. Raises OverloadError when all are taken."""
        if self.gate.num_admitted >= self.gate.max_requests:
            raise OverloadError(f"{self.gate.max_requests} requests are already in flight; try again", _RETRY_SECONDS)
        self.gate.num_admitted += 1
        self.has_slot = True

    def reserve(self, *, answer_bytes: int, held_bytes: int) -> None:
        """Reserve the estimated size of the answer: `held_bytes` in memory for `answer_bytes` sent.

        Raises LimitError when the answer exceeds the limit of a request, OverloadError when memory is short right now.
        """
        gate = self.gate
        if answer_bytes > gate.max_answer_bytes:
            raise LimitError(
                f"the response would be about {_megabytes(answer_bytes)}, more than the limit of "
                f"{_megabytes(gate.max_answer_bytes)}; ask for fewer texts, samples or candidates at once",
                "/texts",
            )
        if held_bytes > gate.answers.max_bytes:
            raise LimitError(
                f"the request would need about {_megabytes(held_bytes)} of memory, more than the "
                f"{_megabytes(gate.answers.max_bytes)} for all requests; ask for fewer texts, samples or candidates",
                "/texts",
            )
        gate.answers.take(held_bytes - self._answer_bytes)
        self._answer_bytes = held_bytes

    def grow(self, num_bytes: int) -> None:
        """Account for an answer that turns out larger than estimated. Raises LimitError, OverloadError."""
        if num_bytes > self._answer_bytes:
            self.reserve(answer_bytes=num_bytes, held_bytes=num_bytes)

    def release(self) -> None:
        """Release the slot, the body and all bytes."""
        self.end_turn()
        self.body = b""
        self.gate.num_admitted -= self.has_slot
        self.gate.bodies.taken -= self._body_bytes
        self.gate.answers.taken -= self._answer_bytes
        self.has_slot, self._body_bytes, self._answer_bytes = False, 0, 0


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.0f} MB" if num_bytes >= 10_000_000 else f"{num_bytes / 1e6:.1f} MB"
