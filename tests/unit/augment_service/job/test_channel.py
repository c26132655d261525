"""Messages through shared memory: they arrive as sent, views never change, and nothing is left of a killed process."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augment_service.job import channel as module
from augment_service.job.channel import BLOCK_BYTES, KEPT_BYTES, Channel

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

# Not dates: numpy gives no buffers of them, so they go through the pipe, which holds little while nobody reads.
DTYPES = ["?", "i1", "<u2", "<i4", "<i8", "<f2", "<f4", "<f8", "<c16", "S3"]
SHAPES = st.lists(st.integers(0, 36), max_size=3).map(tuple)
ARRAYS = st.lists(st.tuples(st.sampled_from(DTYPES), SHAPES, st.integers(0, 9), st.booleans()), max_size=3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 1), ARRAYS),
        st.tuples(st.just("receive"), st.integers(0, 1), st.booleans()),
        st.tuples(st.just("turn"), st.just(0), ARRAYS),
        st.tuples(st.just("drop"), st.integers(0, 9), st.none()),
    ),
    max_size=30,
)


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    one, other = _pair()
    yield one, other
    one.close()
    other.close()


@pytest.mark.parametrize("is_small", [False, True])
@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_arrays_arrive_as_sent_and_never_change_while_they_are_held(
    is_small: bool, steps: list[tuple[str, int, Any]]
) -> None:
    # With these sizes nearly all arrays are in blocks, which grow and are given back.
    small = mock.patch.multiple(module, IN_PIPE_BYTES=8, BLOCK_BYTES=64, KEPT_BYTES=8192)
    with small if is_small else contextlib.nullcontext():
        _check_steps(steps)


def _check_steps(steps: list[tuple[str, int, Any]]) -> None:
    ends, mapped = _pair(), _num_mapped()
    on_the_way: tuple[deque[Any], deque[Any]] = (deque(), deque())
    held: list[list[tuple[Any, Any]]] = []

    def receive(number: int, whole: bool) -> None:
        got = ends[1 - number].receive()
        assert [_identity(one) for one in got] == on_the_way[number].popleft()
        # A view of a view keeps the memory as well.
        kept = [one if whole or not one.ndim else one[:1].T for one in got]
        held.append([(one, _identity(one)) for one in kept])

    for step, number, asked in steps:
        if step == "send" and len(on_the_way[number]) < 3:
            sent = [_array(*one) for one in asked]
            ends[number].send(sent)
            on_the_way[number].append([_identity(one) for one in sent])
            for one in sent:
                one.fill(one.dtype.type())  # A message is what was sent, whatever becomes of the array.
        elif step == "receive" and on_the_way[number]:
            receive(number, asked)
        elif step == "turn":
            for sender in (0, 1):
                ends[sender].send([_array(*one) for one in asked])
                on_the_way[sender].append([_identity(_array(*one)) for one in asked])
                while on_the_way[sender]:
                    receive(sender, whole=True)
        elif step == "drop" and held:
            held.pop(number % len(held))
        assert all(_identity(one) == before for kept in held for one, before in kept)
    for end in ends:
        end.close()
    assert all(_identity(one) == before for kept in held for one, before in kept)
    held.clear()
    gc.collect()
    assert _num_mapped() == mapped


def test_a_block_is_used_again_only_when_nothing_views_it(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    parts: list[Any] = []
    for value in range(5):
        parts.append(_through(one, other, np.full(50_000, value))[10:20])
        assert all((part == place).all() for place, part in enumerate(parts))
        _through(other, one, None)
    mapped = _num_mapped()
    for value in range(5):
        assert (_through(one, other, np.full(50_000, value)) == value).all()
        assert all((part == place).all() for place, part in enumerate(parts))
        _through(other, one, None)
    # At each end, one more block than those that are viewed: it is used again and again.
    assert _num_mapped() == mapped + 2
    parts.clear()
    for _ in range(3):
        _through(other, one, None)
        _through(one, other, np.ones(50_000))
    assert _num_mapped() == mapped + 2


def test_views_may_end_in_other_threads(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    handed: deque[Any] = deque(maxlen=3)
    stop = threading.Event()

    def drop() -> None:
        while not stop.is_set():
            handed.append(None)

    thread = threading.Thread(target=drop)
    thread.start()
    try:
        for value in range(300):
            got = _through(one, other, np.full(9_000, value))
            assert (got == value).all()
            handed.append(got)
            del got
            _through(other, one, None)
    finally:
        stop.set()
        thread.join()
    handed.clear()
    assert _num_mapped() <= 2 * 8


def test_arrow_buffers_are_views_too(ends: tuple[Channel, Channel]) -> None:
    table = pa.table({"a": pa.array(range(100_000)), "b": ["text"] * 100_000})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    before = pa.total_allocated_bytes()
    got = pa.ipc.open_stream(_through(*ends, sink.getvalue())).read_all()
    assert pa.total_allocated_bytes() == before
    _through(ends[1], ends[0], None)
    _through(*ends, np.zeros(10**6))
    assert got.equals(table)


def test_memory_of_a_large_message_is_given_back(ends: tuple[Channel, Channel]) -> None:
    before = _num_mapped()
    for _ in range(3):
        assert len(_through(*ends, np.ones(KEPT_BYTES + 1, np.uint8))) == KEPT_BYTES + 1
        for _ in range(2):
            _through(ends[1], ends[0], None)
            _through(*ends, None)
        assert _num_mapped() == before
    _through(*ends, np.ones(BLOCK_BYTES, np.uint8))
    assert _num_mapped() == before + 2


@pytest.mark.parametrize("how", ["no memfd", "no descriptor left"])
def test_without_shared_memory_all_goes_through_the_pipe(
    ends: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "no memfd":
        monkeypatch.delattr(os, "memfd_create")
    else:
        monkeypatch.setattr(module, "mmap", _refuse)
    before = _num_mapped(), _num_descriptors()
    array = np.arange(5_000)
    assert (_through(*ends, [array, "text"])[0] == array).all()
    assert (_num_mapped(), _num_descriptors()) == before


def test_killed_processes_leave_neither_descriptors_nor_memory() -> None:
    code = (
        "import sys, numpy as np\n"
        "from multiprocessing.connection import Connection\n"
        "from augment_service.job.channel import Channel\n"
        "end, size = Channel(Connection(int(sys.argv[1]))), 1\n"
        "while True:\n"
        "    end.send(np.full(size % 3_000_000, size))\n"
        "    size = size * 3 + 1\n"
        "    end.receive()\n"
    )
    shm = sorted(os.listdir("/dev/shm"))
    before: tuple[int, int] | None = None
    for delay in (0.0, 0.003, 0.01, 0.02, 0.05):
        ours, theirs = multiprocessing.Pipe()
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(theirs.fileno())], pass_fds=[theirs.fileno()], env=_environment()
        )
        theirs.close()
        end = Channel(ours)
        held = end.receive()
        timer = threading.Timer(delay, os.kill, (process.pid, signal.SIGKILL))
        timer.start()
        with pytest.raises((EOFError, OSError)):
            _receive_all(end)
        timer.join()
        process.wait()
        assert (held == held[:1]).all()
        end.close()
        del end, held
        gc.collect()
        now = _num_mapped(), _num_descriptors()
        before = before or now
        assert now == before
    assert before is not None
    assert before[0] == 0
    assert sorted(os.listdir("/dev/shm")) == shm


def test_a_sender_may_die_between_a_message_and_its_memory(ends: tuple[Channel, Channel]) -> None:
    # What a block's first message looks like when the process was killed before it sent the descriptor.
    ends[0]._pipe.send((b"", [(0, 8)], 0, BLOCK_BYTES, [], []))
    ends[0]._pipe.close()
    with pytest.raises(EOFError):
        ends[1].receive()


def _pair() -> tuple[Channel, Channel]:
    one, other = multiprocessing.Pipe()
    return Channel(one), Channel(other)


def _through(one: Channel, other: Channel, message: Any) -> Any:
    one.send(message)
    return other.receive()


def _receive_all(end: Channel) -> None:
    while True:
        end.send(None)
        got = end.receive()
        assert (got == got[:1]).all()


def _array(dtype: str, shape: tuple[int, ...], seed: int, is_fortran: bool) -> Any:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.random.default_rng(seed).integers(0, 2 if dtype == "?" else 256, size, np.uint8)
    return raw.view(dtype).reshape(shape, order="F" if is_fortran else "C")


def _identity(array: Any) -> tuple[str, tuple[int, ...], bytes]:
    return array.dtype.str, array.shape, array.tobytes()


def _refuse(*_: Any) -> Any:
    raise OSError("no memory")


def _num_mapped() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:augment-service")


def _num_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
