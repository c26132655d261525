"""Messages between two processes of one machine, with large arrays in shared memory.

A message is pickled and sent through a pipe, except for its large buffers (numpy arrays and Arrow buffers). The sender
copies them into a block of shared memory, and the receiver's arrays are views of that block. The receiver owns the
block until the last of these views is gone; its next message returns the block, which the sender may then reuse. So a
view never changes, however long it is kept, and each end maps a few blocks that grow with the messages.

A block is a memfd, sent through the pipe when it is new. It has no name, so it is freed with its last process, however
that ends. Unlike /dev/shm, whose small size (64 MB in Docker) would kill a writer with SIGBUS, it counts as memory of
the processes. Without memfd, as on macOS, everything goes through the pipe.
"""

from __future__ import annotations

import os
import pickle
import weakref
from collections import deque
from collections.abc import Sequence
from mmap import mmap
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

import numpy as np

IN_PIPE_BYTES = 4096
"""Smaller buffers go through the pipe, which is cheaper than managing a block."""
BLOCK_BYTES = 1 << 18
KEPT_BYTES = 1 << 26
"""Limit of free blocks. Above it the largest is freed, so that one large shard does not take memory for good."""
_ALIGNMENT = 64
_HERE = 0
"""Destination process of a descriptor, needed only on Windows."""


class Channel:
    """One end of a pipe. Use from one thread at a time; views may be released in any thread.

    Raises EOFError or OSError when the other end is gone.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._num_blocks = 0
        self._mine: dict[int, mmap] = {}
        self._free: list[int] = []
        self._dropped: list[int] = []
        self._theirs: dict[int, mmap] = {}
        self._read: deque[int] = deque()

    def send(self, message: Any) -> None:
        """Send any picklable object. It is copied, so arrays may be modified afterwards."""
        buffers: list[memoryview] = []

        def stays(buffer: pickle.PickleBuffer) -> bool:
            raw = buffer.raw()
            if raw.nbytes >= IN_PIPE_BYTES:
                buffers.append(raw)
            return raw.nbytes < IN_PIPE_BYTES

        pickled = pickle.dumps(message, 5, buffer_callback=stays)
        starts = np.cumsum([0, *(-(-one.nbytes // _ALIGNMENT) * _ALIGNMENT for one in buffers)]).tolist()
        spans = [(start, start + one.nbytes) for start, one in zip(starts, buffers, strict=False)]
        number, descriptor = -1, -1
        try:
            if buffers:
                number, descriptor = self._block(starts[-1])
        except OSError:
            # memfd is unsupported, or descriptors have run out.
            pickled, spans = pickle.dumps(message, 5), []
        try:
            for (start, stop), one in zip(spans, buffers, strict=False):
                self._mine[number][start:stop] = one
            read = [self._read.popleft() for _ in range(len(self._read))]
            dropped, self._dropped = self._dropped, []
            size = 0 if descriptor < 0 else len(self._mine[number])
            self._pipe.send((pickled, spans, number, size, read, dropped))
            if size:
                send_handle(self._pipe, descriptor, _HERE)
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def receive(self) -> Any:
        """The next message. Its large arrays are writable views of shared memory, reserved for them while they live."""
        pickled, spans, number, size, read, dropped = self._pipe.recv()
        self._take_back(read)
        for one in dropped:
            del self._theirs[one]
        if size:
            self._theirs[number] = _received_block(self._pipe, size)
        if not spans:
            return pickle.loads(pickled)
        # Every view, and every view of a view, keeps this array alive.
        whole = np.frombuffer(self._theirs[number], np.uint8)
        weakref.finalize(whole, self._read.append, number)
        return pickle.loads(pickled, buffers=[whole[start:stop] for start, stop in spans])

    def close(self) -> None:
        """Close the pipe and release the memory, except blocks with live views."""
        self._pipe.close()
        for blocks in (self._mine, self._theirs):
            blocks.clear()

    def _block(self, size: int) -> tuple[int, int]:
        """Number of a free block, and its descriptor if it is new, else -1. Raises OSError."""
        fitting = [number for number in self._free if len(self._mine[number]) >= size]
        if fitting:
            # Among equal sizes, the one returned last, which may still be in the CPU cache.
            number = min(reversed(fitting), key=lambda one: len(self._mine[one]))
            self._free.remove(number)
            return number, -1
        if not hasattr(os, "memfd_create"):
            raise OSError("this system has no memfd")
        descriptor = os.memfd_create("augment-service")
        try:
            # Only pages that are written take memory.
            size = max(BLOCK_BYTES, 1 << (size - 1).bit_length())
            os.ftruncate(descriptor, size)
            self._mine[self._num_blocks] = mmap(descriptor, size)
        except OSError:
            os.close(descriptor)
            raise
        self._num_blocks += 1
        return self._num_blocks - 1, descriptor

    def _take_back(self, numbers: Sequence[int]) -> None:
        """Reclaim blocks that the other end has returned."""
        self._free += numbers
        kept = sum(len(self._mine[one]) for one in self._free)
        while kept > KEPT_BYTES:
            largest = max(self._free, key=lambda one: len(self._mine[one]))
            self._free.remove(largest)
            kept -= len(self._mine.pop(largest))
            self._dropped.append(largest)


def _received_block(pipe: Connection, size: int) -> mmap:
    try:
        descriptor = recv_handle(pipe)
    except RuntimeError as error:
        raise OSError("a message arrived without its shared memory: too many files are open") from error
    try:
        return mmap(descriptor, size)
    finally:
        os.close(descriptor)
