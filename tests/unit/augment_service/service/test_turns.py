"""Turns of large requests: one at a time, in order, none lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from augment_service.service.turns import Turns
from shared.errors import OverloadError

ACTIONS = ("ask", "end", "cancel first", "cancel last", "refuse", "look around")


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_the_event_loop_turns_between_two_requests() -> None:
    async def run() -> list[str]:
        turns, seen = Turns(), list[str]()

        async def large(name: str) -> None:
            await turns.take()
            seen.append(name)
            turns.end()

        async def small() -> None:
            await asyncio.sleep(0)
            seen.append("small")

        await asyncio.gather(large("first"), large("second"), large("third"), small())
        return seen

    assert asyncio.run(run()) == ["first", "small", "second", "third"]


def test_a_request_refused_to_make_room_is_the_newest() -> None:
    async def run() -> None:
        turns = Turns()
        assert not turns.refuse_newest()
        await turns.take()
        old, new = asyncio.create_task(turns.take()), asyncio.create_task(turns.take())
        await settle()
        assert turns.refuse_newest()
        with pytest.raises(OverloadError):
            await new
        turns.end()
        await old

    asyncio.run(run())


@given(st.lists(st.sampled_from(ACTIONS), max_size=40))
@example(["ask", "ask", "look around", "end", "look around", "cancel first"])
def test_whatever_happens_one_request_at_a_time_has_the_turn_in_the_order_of_arrival(actions: list[str]) -> None:
    async def run() -> None:
        turns, waiting, holders = Turns(), list[asyncio.Task[None]](), list[asyncio.Task[None]]()

        def note() -> None:
            for task in [one for one in waiting if one.done()]:
                waiting.remove(task)
                if not task.cancelled() and task.exception() is None:
                    holders.append(task)
            assert len(holders) <= 1, "two requests have the turn"

        def cancel(choose: Callable[[list[asyncio.Task[None]]], asyncio.Task[None]]) -> None:
            if waiting:
                choose(waiting).cancel()

        for action in actions:
            first = waiting[0] if waiting else None
            if action == "ask":
                waiting.append(asyncio.create_task(turns.take()))
            elif action == "end" and holders:
                holders.pop()
                turns.end()
            elif action == "cancel first":
                cancel(lambda tasks: tasks[0])
            elif action == "cancel last":
                cancel(lambda tasks: tasks[-1])
            elif action == "refuse":
                turns.refuse_newest()
            elif action == "look around":
                await asyncio.sleep(0)
            had_turn = list(holders)
            note()
            assert not holders or had_turn or first is None or holders[0] is first or first.cancelled()
        # Whoever is left gets the turn, one after the other.
        for _ in range(2 * len(actions) + 2):
            await settle()
            note()
            if holders:
                holders.pop()
                turns.end()
        await settle()
        note()
        assert not waiting
        assert not turns.num_waiting
        await asyncio.wait_for(turns.take(), 1)

    asyncio.run(run())
