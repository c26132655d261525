"""Objects that exist before a server is ready cost no garbage collection afterwards, and are freed all the same."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from shared.compute.memory import exempt_from_collection


class Node:
    """An object that can be part of a cycle."""

    other: Node | None = None


@pytest.fixture(autouse=True)
def collected_again() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_a_collection_visits_only_what_came_later() -> None:
    kept = [Node() for _ in range(1_000)]
    exempt_from_collection()
    assert gc.get_freeze_count() > len(kept)
    seen = {id(one) for one in gc.get_objects()}
    assert not seen & {id(one) for one in kept}
    later = Node()
    assert id(later) in {id(one) for one in gc.get_objects()}


def test_cycles_made_later_are_collected_and_earlier_objects_are_freed_without_references() -> None:
    earlier = Node()
    exempt_from_collection()
    one, two = Node(), Node()
    one.other, two.other = two, one
    watched = [weakref.ref(one), weakref.ref(earlier)]
    del one, two, earlier
    gc.collect()
    assert [watch() for watch in watched] == [None, None]
