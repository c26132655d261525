"""Processes that do all work outside the model's forward pass, so that a GPU does not wait for one Python process.

The actor that holds the model splits each shard into parts of PART_ROWS rows. A feeder process takes a part, finds its
words and inputs, queries the actor for rankings and neighbours, and sends back the finished table; large arrays travel
in shared memory (`channel`). While one part is in the model, other feeders prepare or assemble theirs. Parts depend on
the rows alone, so the bytes of a shard are the same for any number of feeders. At most one part per feeder is in
flight, which bounds memory.

To the rest of the job this is one process: an exception in a feeder is raised in the actor, and if a feeder dies, the
driver replaces the actor as if it had died. A feeder ends when its actor dies.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from augment_service.config import RunConfig
from augment_service.engine.augment import AugmentEngine, Ranker
from augment_service.engine.batches import Ints, ModelInput, ModelInputs, Rankings
from augment_service.engine.lexicon import Lexicon
from augment_service.engine.proposer import Nearest, Neighbours
from augment_service.job.assemble import shard_table
from augment_service.job.channel import Channel
from augment_service.job.failures import BrokenProcessError
from shared.compute.memory import keep_freed_memory
from shared.inputs.rows import SourceRow
from shared.label_quotas import LabelQuotas
from shared.params import AugmentParams

PART_ROWS = 128
"""Rows of a part: some 20,000 tokens of SST-2, a full batch of a GPU."""
MOST_PER_GPU = 8


def num_workers_per_gpu(config: RunConfig, device: str) -> int:
    """Number of feeder processes of an actor on this device."""
    if config.workers_per_gpu != "auto":
        return int(config.workers_per_gpu)
    if device == "cpu":
        return 0
    import torch

    gpus = max(torch.cuda.device_count(), 1) / min(config.mlm_gpus, 1.0)
    return max(min(MOST_PER_GPU, int(len(os.sched_getaffinity(0)) / gpus)), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeederWork:
    """A job's configuration for feeders. emit: samples or candidates."""

    lexicon: Lexicon
    params: AugmentParams
    emit: str
    quotas: LabelQuotas | None = None


@dataclass(frozen=True, slots=True)
class _Rank:
    """A query to the masked LM: arguments of MaskedLM.rank, with `excluded` by name."""

    inputs: ModelInputs
    batches: Sequence[Ints]
    k: int
    whole_words: bool


@dataclass(frozen=True, slots=True)
class _Nearest:
    """A query to the word vectors."""

    words: Sequence[str]
    k: int


class _AbandonedError(Exception):
    """Raised and returned by a feeder whose query failed; the actor has the actual error."""


@dataclass(frozen=True, slots=True)
class _Table:
    """A finished part: its table in Arrow stream format, and its counts."""

    stream: pa.Buffer
    statistics: dict[str, float]


class Feeders:
    """A group of feeder processes. `table` is thread-safe."""

    def __init__(self, count: int, work: FeederWork, masked_lm: Ranker, neighbours: Neighbours) -> None:
        self._masked_lm, self._neighbours = masked_lm, neighbours
        self._excluded = ~work.lexicon.vocabulary.is_whole_word
        self._model_lock, self._vector_lock = threading.Lock(), threading.Lock()
        self._idle: queue.SimpleQueue[Channel] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(count, "feeder")
        self._processes: list[subprocess.Popen[bytes]] = []
        for _ in range(count):
            ours, theirs = multiprocessing.Pipe()
            self._processes.append(_start(theirs))
            theirs.close()
            self._idle.put(Channel(ours))
            ours.send(work)

    @property
    def pids(self) -> list[int]:
        """Process ids of the feeders."""
        return [process.pid for process in self._processes]

    def table(
        self, rows: Sequence[SourceRow], schema: pa.Schema, batch_tokens: int
    ) -> tuple[pa.Table, dict[str, float]]:
        """The table of a shard, and its counts.

        Raises what the engine raised in a feeder or the models in this process, and BrokenProcessError when a feeder
        has died.
        """
        starts = range(0, max(len(rows), 1), PART_ROWS)
        asked = [(rows[start : start + PART_ROWS], schema, batch_tokens) for start in starts]
        parts = [self._threads.submit(self._part, part) for part in asked]
        try:
            found = [part.result() for part in parts]
        finally:
            for part in parts:
                part.cancel()
        tables = [pa.ipc.open_stream(one.stream).read_all() for one in found]
        statistics: dict[str, float] = {}
        for one in found:
            for name, value in one.statistics.items():
                statistics[name] = statistics.get(name, 0) + value
        return pa.concat_tables(tables).combine_chunks(), statistics

    def close(self) -> None:
        """End the processes."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for process in self._processes:
            process.kill()
            process.wait()
        while not self._idle.empty():
            self._idle.get().close()

    def _part(self, asked: tuple[Sequence[SourceRow], pa.Schema, int]) -> _Table:
        channel = self._idle.get()
        raised: Exception | None = None
        try:
            said = _ask(channel, asked)
            while isinstance(said, _Rank | _Nearest):
                try:
                    answer = self._answer(said)
                except Exception as error:
                    answer, raised = _AbandonedError(), error
                said = _ask(channel, answer)
        finally:
            # Also if the feeder died: the next user gets the same error.
            self._idle.put(channel)
        if isinstance(said, Exception):
            raise raised if raised is not None else said
        assert isinstance(said, _Table)
        return said

    def _answer(self, asked: _Rank | _Nearest) -> Any:
        if isinstance(asked, _Nearest):
            with self._vector_lock:
                return self._neighbours.nearest(asked.words, asked.k)
        with self._model_lock:
            excluded = self._excluded if asked.whole_words else None
            return self._masked_lm.rank(asked.inputs, asked.batches, asked.k, excluded)


def _ask(channel: Channel, message: Any) -> Any:
    """Send a message to a feeder, and return its next one. Raises BrokenProcessError if it has died."""
    try:
        channel.send(message)
        return channel.receive()
    except (EOFError, OSError) as error:
        raise BrokenProcessError("a process that prepares inputs for the model has died") from error


def _start(pipe: Connection) -> subprocess.Popen[bytes]:
    """Start a feeder at the other end of a pipe.

    A fresh interpreter: a fork of this process would inherit its device and the threads of its libraries, and Python's
    own `spawn` would run Ray's main module again.
    """
    code = f"from {feed.__module__} import {feed.__name__}; {feed.__name__}({pipe.fileno()})"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen([sys.executable, "-c", code], pass_fds=[pipe.fileno()], env=environment)


@dataclass(slots=True)
class _Models:
    """The models, as a feeder sees them."""

    channel: Channel
    lexicon: Lexicon

    def rank(
        self,
        inputs: Sequence[ModelInput],
        batches: Sequence[Sequence[int] | Ints],
        k: int,
        excluded: NDArray[np.bool_] | None,
    ) -> Rankings:
        """As MaskedLM.rank."""
        asked = [np.asarray(batch, np.int64) for batch in batches]
        found: Rankings = self._ask(_Rank(ModelInputs.of(inputs), asked, k, excluded is not None))
        return found

    def nearest(self, words: Sequence[str], k: int) -> Nearest:
        """As GloveVectors.nearest."""
        found: Nearest = self._ask(_Nearest(words, k))
        return found

    def _ask(self, question: _Rank | _Nearest) -> Any:
        self.channel.send(question)
        answer = self.channel.receive()
        if isinstance(answer, Exception):
            raise answer
        return answer


def feed(descriptor: int) -> None:
    """Main loop of a feeder: parts in, tables out, until the actor closes the pipe or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_memory()
    pa.set_cpu_count(1)
    with contextlib.suppress(EOFError, OSError), Connection(descriptor) as pipe:
        work: FeederWork = pipe.recv()
        channel = Channel(pipe)
        models = _Models(channel, work.lexicon)
        engine = AugmentEngine(models, models, work.params, quotas=work.quotas)
        while True:
            rows, schema, engine.batch_tokens = channel.receive()
            try:
                said: Any = _table(engine, work.emit, rows, schema)
            except (EOFError, BrokenPipeError, ConnectionError):
                return
            except Exception as error:
                said = _sendable(error)
            channel.send(said)


def _table(engine: AugmentEngine, emit: str, rows: Sequence[SourceRow], schema: pa.Schema) -> _Table:
    table, statistics = shard_table(engine, emit, rows, schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return _Table(sink.getvalue(), statistics)


def _sendable(error: Exception) -> Exception:
    """The error, or one with the same message if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
