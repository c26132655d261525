"""Two drivers on one output: their store operations interleaved step by step, in thousands of schedules.

Each driver runs the real code in a thread of its own; every operation on the store is one step, and a schedule decides
whose step comes next. A driver may be killed at any step. Whatever the schedule, an output marked complete is complete.
"""

from __future__ import annotations

import builtins
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import OutputError
from shared.shard_checks import check_complete, find_damaged, remove_orphans
from shared.shards import SUCCESS, commit_name, done_already, read_commit, read_shard, write_shard
from shared.success import write_success

NUM_SHARDS = 3
STEP_SECONDS = 60.0


class Killed(BaseException):
    """A driver was killed: no handler of the program sees this."""


@dataclass
class Turns:
    """Lets exactly one driver take one step at a time, in the order of a schedule."""

    schedule: list[int]
    alive: set[int] = field(default_factory=lambda: {0, 1})
    killed: set[int] = field(default_factory=set)
    condition: threading.Condition = field(default_factory=threading.Condition)
    taken: int = 0

    def holder(self) -> int:
        """The driver whose step comes next; after the end of the schedule they alternate."""
        wanted = self.schedule[self.taken] if self.taken < len(self.schedule) else self.taken % 2
        return wanted if wanted in self.alive else next(iter(self.alive))

    @contextlib.contextmanager
    def step(self, driver: int) -> Iterator[None]:
        """Wait for the driver's turn; raises Killed when the schedule has killed it."""
        with self.condition:
            assert self.condition.wait_for(lambda: self.holder() == driver, STEP_SECONDS), "no turn came"
            if driver in self.killed:
                raise Killed
            try:
                yield
            finally:
                self.taken += 1
                self.condition.notify_all()

    def leave(self, driver: int) -> None:
        """The driver is done or dead."""
        with self.condition:
            self.alive.discard(driver)
            self.condition.notify_all()


class MemoryStore:
    """An output folder in memory, with the store's semantics."""

    def __init__(self) -> None:
        self.uri = "memory"
        self.files: dict[str, bytes] = {}

    def exists(self, name: str) -> bool:
        return name in self.files

    def read(self, name: str) -> bytes:
        from shared.errors import StoreError

        if name not in self.files:
            raise StoreError(f"{name}: no such file")
        return self.files[name]

    def sizes(self, prefix: str) -> dict[str, int]:
        return {name: len(self.files[name]) for name in sorted(self.files) if name.startswith(prefix + "/")}

    def list(self, prefix: str) -> builtins.list[str]:
        return list(self.sizes(prefix))

    def put(self, name: str, content: bytes) -> None:
        self.files[name] = content

    def put_if_absent(self, name: str, content: bytes) -> bool:
        if name in self.files:
            return False
        self.files[name] = content
        return True

    def delete(self, name: str) -> None:
        self.files.pop(name, None)

    def entries(self) -> builtins.list[str]:
        return sorted({name.partition("/")[0] for name in self.files})

    def remove_partials(self, live_writers: frozenset[str], older_than_seconds: float) -> int:
        return 0


class SteppedStore:
    """A driver's view of a store: each operation waits for the driver's turn."""

    def __init__(self, store: MemoryStore, turns: Turns, driver: int) -> None:
        self._store, self._turns, self._driver = store, turns, driver
        self.uri = store.uri

    def __getattr__(self, name: str) -> Callable[..., object]:
        operation = getattr(self._store, name)

        def stepped(*arguments: object) -> object:
            with self._turns.step(self._driver):
                return operation(*arguments)

        return stepped


def table_of(shard: int, variant: int = 0) -> pa.Table:
    """Content of a shard; other variants are what a batch done in halves may give."""
    return pa.table({"source_id": [shard], "score": [shard + variant / 10]})


def drive(store: SteppedStore, variant: int, outcome: dict[int, str], driver: int, turns: Turns) -> None:
    """What a run does with its output, from the check of what is there to the mark of completion."""
    try:
        damaged = find_damaged(store, read_all=True)  # type: ignore[arg-type]
        committed = {int(name[8:13]) for name in store.list("commits")}  # type: ignore[attr-defined]
        for shard in sorted(set(range(NUM_SHARDS)) - committed | set(damaged)):
            if done_already(store, shard) is not None:  # type: ignore[arg-type]
                continue
            statistics = {"halved_batches": 1.0} if variant else {}
            write_shard(store, shard, table_of(shard, variant), 1, [], statistics)  # type: ignore[arg-type]
        done = check_complete(store, rows=NUM_SHARDS, shards=NUM_SHARDS)  # type: ignore[arg-type]
        remove_orphans(store, known=done.files)  # type: ignore[arg-type]
        write_success(store, done.totals, done.commits_sha256)  # type: ignore[arg-type]
        outcome[driver] = "complete"
    except Killed:
        outcome[driver] = "killed"
    except OutputError as error:
        outcome[driver] = f"refused: {error}"
    finally:
        turns.leave(driver)


def prepared(damage: list[str]) -> MemoryStore:
    """An output with shards committed, missing or damaged, one word per shard."""
    store = MemoryStore()
    for shard, how in enumerate(damage):
        if how == "missing":
            continue
        commit = write_shard(store, shard, table_of(shard), 1, [], {})
        if how == "no file":
            del store.files[commit.file]
        elif how == "bit flip":
            store.files[commit.file] = store.files[commit.file][:-1] + b"\x00"
        elif how == "bad record":
            store.files[commit_name(shard)] = b'{"shard": '
    return store


@settings(max_examples=400)
@given(
    damage=st.lists(
        st.sampled_from(["missing", "whole", "no file", "bit flip", "bad record"]),
        min_size=NUM_SHARDS,
        max_size=NUM_SHARDS,
    ),
    schedule=st.lists(st.integers(0, 1), max_size=120),
    variants=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    killed_at=st.one_of(st.none(), st.tuples(st.integers(0, 1), st.integers(0, 40))),
)
def test_whatever_the_interleaving_a_complete_output_is_complete(
    damage: list[str],
    schedule: list[int],
    variants: tuple[int, int],
    killed_at: tuple[int, int] | None,
) -> None:
    store, turns, outcome = prepared(damage), Turns(schedule), dict[int, str]()
    drivers = []
    for driver in (0, 1):
        view = SteppedStore(store, turns, driver)
        if killed_at is not None and killed_at[0] == driver:
            view = KilledStore(store, turns, driver, killed_at[1])
        drivers.append(threading.Thread(target=drive, args=(view, variants[driver], outcome, driver, turns)))
    for one in drivers:
        one.start()
    for one in drivers:
        one.join()
    survivors = [result for driver, result in outcome.items() if killed_at is None or driver != killed_at[0]]
    assert len(outcome) == 2
    assert all(result == "complete" for result in survivors), outcome
    assert store.exists(SUCCESS)
    for shard in range(NUM_SHARDS):
        commit = read_commit(store, commit_name(shard))
        assert read_shard(store, commit).column("source_id").to_pylist() == [shard]
    check_complete(store, rows=NUM_SHARDS, shards=NUM_SHARDS)


class KilledStore(SteppedStore):
    """A driver that is killed after some of its steps."""

    def __init__(self, store: MemoryStore, turns: Turns, driver: int, steps: int) -> None:
        super().__init__(store, turns, driver)
        self._steps = steps

    def __getattr__(self, name: str) -> Callable[..., object]:
        stepped = super().__getattr__(name)

        def counted(*arguments: object) -> object:
            self._steps -= 1
            if self._steps < 0:
                raise Killed
            return stepped(*arguments)

        return counted


def test_an_output_with_a_hole_is_never_marked_complete() -> None:
    store = prepared(["whole", "missing", "whole"])
    with pytest.raises(OutputError, match="shard 1"):
        check_complete(store, rows=NUM_SHARDS, shards=NUM_SHARDS)
