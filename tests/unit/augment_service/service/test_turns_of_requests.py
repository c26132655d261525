"""Large requests that wait for their turn, through the middleware: how each ends, and what it leaves behind."""

from __future__ import annotations

import asyncio
from typing import Any

from augment_service.service.access import Access
from augment_service.service.admission import Gate
from augment_service.service.deadlines import Deadlines
from augment_service.service.metrics import ServiceMetrics
from augment_service.service.middleware import Middleware, MiddlewareSettings

from .test_connections import answer_to, problem_of, serving

BODY = b'"' + b"x" * 20_000 + b'"'
HEADERS = b"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)
LARGE = b"POST /v1/augment HTTP/1.1\r\n" + HEADERS + BODY


async def unreachable(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("the request was not stopped")


def guarded(gate: Gate, request_seconds: float = 20.0) -> Middleware:
    """The middleware in front of an application that no request may reach."""
    settings = MiddlewareSettings(
        max_body_bytes=100_000, body_seconds=20.0, request_seconds=request_seconds, slow_seconds=20.0
    )
    return Middleware(
        unreachable, access=Access(()), settings=settings, metrics=ServiceMetrics(), gate=gate, deadlines=Deadlines()
    )


def gate_for(max_requests: int) -> Gate:
    return Gate(max_requests=max_requests, max_answer_bytes=10**6, memory_budget=10**7)


def test_a_request_that_makes_room_is_answered_and_its_connection_closed() -> None:
    async def run() -> None:
        gate = gate_for(8)
        await gate.turns.take()
        async with serving(8, guarded(gate)) as port:
            answer = asyncio.create_task(answer_to(port, LARGE))
            async with asyncio.timeout(10):
                while not gate.turns.refuse_newest():
                    await asyncio.sleep(0.005)
            # An idle connection would be closed after some seconds as well, but the room is needed now.
            assert problem_of(await answer)["code"] == "overload"
            assert b"\r\nconnection: close\r\n" in answer.result().lower()

    asyncio.run(run())


def test_waiting_too_long_for_a_turn_is_not_blamed_on_the_body() -> None:
    async def run() -> None:
        gate = gate_for(8)
        await gate.turns.take()
        async with serving(8, guarded(gate, request_seconds=0.2)) as port:
            # The connection stays open, so read the answer's head and body only.
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(LARGE)
            status = await asyncio.wait_for(reader.readline(), 10)
            assert status.split()[1] == b"504"
            writer.close()
        assert gate.num_admitted == gate.bodies.taken == 0

    asyncio.run(run())


def test_a_client_that_does_not_read_its_refusal_keeps_nobody_from_a_turn() -> None:
    async def run() -> None:
        gate = gate_for(1)
        gate.lease().take_slot()
        is_sending = asyncio.Event()

        async def receive() -> Any:
            return {"type": "http.request", "body": BODY, "more_body": False}

        async def send(message: Any) -> None:
            is_sending.set()
            await asyncio.Event().wait()

        scope = {"type": "http", "method": "POST", "path": "/v1/augment", "raw_path": b"/v1/augment"}
        scope["headers"] = [(b"content-type", b"application/json")]
        refused = asyncio.create_task(guarded(gate)(scope, receive, send))
        await asyncio.wait_for(is_sending.wait(), 10)
        await asyncio.wait_for(gate.turns.take(), 1)
        refused.cancel()

    asyncio.run(run())
