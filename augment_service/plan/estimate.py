"""Extrapolates calibration measurements to a whole job (pure arithmetic).

The time of a job has two parts. Model passes: on CPUs as measured on this machine, by length; on a named GPU from
FLOPs, the GPU's data-sheet peak and an assumed utilisation. Everything else (words, draws, Arrow, commits) runs on CPUs
wherever the model runs, and is taken as measured on this machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from augment_service.engine.flops import ModelCost
from augment_service.plan.gpus import KERNELS_PER_LAYER, SECONDS_PER_KERNEL, Gpu


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Number of model inputs of one length, and their total number of answers (masked positions)."""

    inputs: int
    answers: int


@dataclass(frozen=True, slots=True)
class Passes:
    """Distinct model inputs counted by length in tokens, and distinct words looked up in the vectors."""

    by_length: Mapping[int, Count]
    words: frozenset[str] = frozenset()

    @property
    def inputs(self) -> int:
        """Number of model inputs."""
        return sum(count.inputs for count in self.by_length.values())

    @property
    def tokens(self) -> int:
        """Number of tokens in all inputs."""
        return sum(length * count.inputs for length, count in self.by_length.items())

    @property
    def answers(self) -> int:
        """Number of answers from all inputs."""
        return sum(count.answers for count in self.by_length.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class TypicalInput:
    """A representative input: its length in tokens, and the typical number of answers at this length."""

    length: int
    answers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A loaded masked LM: cost per input, device and precision."""

    cost: ModelCost
    device: str
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Rows processed as in the job, and the time taken.

    cpu_seconds: CPU time within `seconds`; model_inputs: inputs that went through the model; vector_words: words looked
    up in the vectors for the first time, in vector_seconds; passes: the count of these rows.
    """

    rows: int
    samples: int
    num_bytes: int
    seconds: float
    cpu_seconds: float
    model_seconds: float
    model_inputs: int
    vector_seconds: float
    vector_words: int
    passes: Passes

    @property
    def rest_seconds(self) -> float:
        """Time outside the masked LM and the vectors: words, draws, Arrow, commit."""
        return self.seconds - self.model_seconds - self.vector_seconds


@dataclass(frozen=True, slots=True)
class SecondsByLength:
    """Measured seconds per model input by length in tokens, ascending; the time per token is interpolated linearly."""

    measured: Mapping[int, float]

    def of(self, passes: Passes) -> float:
        """Seconds that one process takes for these inputs."""
        return sum(count.inputs * self._one(length) for length, count in passes.by_length.items())

    def _one(self, length: int) -> float:
        lower, lower_seconds = next(iter(self.measured.items()))
        for upper, seconds in self.measured.items():
            if length <= upper:
                low, high = lower_seconds / lower, seconds / upper
                share = (length - lower) / (upper - lower) if upper > lower and length > lower else 0.0
                return length * (low + share * (high - low)) if length > lower else length * low
            lower, lower_seconds = upper, seconds
        return length * lower_seconds / lower


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Results of the calibration: passes counted in whole shards, and times from `num_processes` processes.

    curve: None if lengths were not timed separately, because a GPU will run the model; counted: per shard;
    counted_rows: input rows in those shards, including quarantined ones; start_seconds: until models and Ray are ready.
    """

    loaded: Loaded
    num_processes: int
    counted: Sequence[Passes]
    counted_rows: int
    curve: SecondsByLength | None
    blocks: Sequence[Block]
    start_seconds: float


def merge(parts: Sequence[Passes]) -> Passes:
    """The inputs of several shards combined."""
    total: dict[int, Count] = {}
    for part in parts:
        for length, count in part.by_length.items():
            before = total.get(length, Count(inputs=0, answers=0))
            total[length] = Count(inputs=before.inputs + count.inputs, answers=before.answers + count.answers)
    return Passes(dict(sorted(total.items())), frozenset().union(*(part.words for part in parts)))


def distinct_words(parts: Sequence[Passes], counted_rows: int, rows: int) -> float:
    """Estimate the distinct words in `rows` rows from parts with `counted_rows` rows in total.

    Their number grows as a power of the number of rows (Heaps' law), fitted to the first half of the parts and to all.
    """
    whole = len(merge(parts).words)
    half = len(merge(parts[: len(parts) // 2]).words)
    if not half or whole <= half:
        return float(whole)
    power = min(math.log(whole / half) / math.log(len(parts) / (len(parts) // 2)), 1.0)
    return float(whole * (rows / counted_rows) ** power)


def typical_lengths(passes: Passes, count: int = 6) -> list[TypicalInput]:
    """Representative inputs by ascending length: the shortest, the longest, and `count` or so token quantiles."""
    lengths = sorted(passes.by_length)
    total = passes.tokens
    chosen, seen = {lengths[0], lengths[-1]}, 0
    for length in lengths:
        before = seen * (count - 1) // total
        seen += length * passes.by_length[length].inputs
        if seen * (count - 1) // total > before:
            chosen.add(length)
    found = [(length, passes.by_length[length]) for length in sorted(chosen)]
    return [TypicalInput(length=length, answers=max(round(one.answers / one.inputs), 1)) for length, one in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A whole job: its rows and shards, its model inputs, and the time that one process would take."""

    rows: int
    shard_rows: int
    inputs: float
    tokens: float
    encoder_flops: float
    head_flops: float
    samples: float
    num_bytes: float
    cpu_model_seconds: float
    vector_seconds: float
    rest_seconds: float

    @property
    def shards(self) -> int:
        """Number of shards: units of work and commit."""
        return -(-self.rows // self.shard_rows)


def core_share(blocks: Sequence[Block]) -> float:
    """Share of a core that a process got: 1 on an idle machine, less under contention."""
    return min(sum(block.cpu_seconds for block in blocks) / sum(block.seconds for block in blocks), 1.0)


def whole_job(*, rows: int, shard_rows: int, measured: Measurement, pace: float) -> Work:
    """Scale the count of some whole shards to all rows, corrected by the measured times of blocks of rows.

    The blocks correct for two things that the count does not cover: the number of inputs per word under a conditioning,
    and the cost of batches of mixed lengths relative to one length. Measured seconds are multiplied by `pace`.
    """
    blocks, cost = measured.blocks, measured.loaded.cost
    # Without times by length, the time per token comes from the blocks alone.
    curve = measured.curve or SecondsByLength({1: 1.0})
    counted, scale = merge(measured.counted), rows / measured.counted_rows
    asked = sum(block.model_inputs for block in blocks) / max(sum(block.passes.inputs for block in blocks), 1)
    by_curve = sum(curve.of(block.passes) for block in blocks) * asked
    correction = sum(block.model_seconds for block in blocks) / by_curve if by_curve else 1.0
    done = sum(block.rows for block in blocks)
    encoder_flops = sum(cost.encoder(length) * count.inputs for length, count in counted.by_length.items())
    words = distinct_words(measured.counted, measured.counted_rows, rows)
    seconds_per_word = sum(block.vector_seconds for block in blocks) / max(
        sum(block.vector_words for block in blocks), 1
    )
    return Work(
        rows=rows,
        shard_rows=shard_rows,
        inputs=scale * asked * counted.inputs,
        tokens=scale * asked * counted.tokens,
        encoder_flops=scale * asked * encoder_flops,
        head_flops=scale * asked * counted.answers * cost.head,
        samples=rows * sum(block.samples for block in blocks) / done,
        num_bytes=rows * sum(block.num_bytes for block in blocks) / done,
        cpu_model_seconds=pace * scale * asked * correction * curve.of(counted),
        vector_seconds=pace * words * seconds_per_word,
        rest_seconds=pace * rows * sum(block.rest_seconds for block in blocks) / done,
    )


def gpu_model_seconds(
    work: Work, gpu: Gpu, *, utilisation: float, in_bf16: bool, layers: int, batch_tokens: int
) -> float:
    """Seconds that one GPU takes for all passes: FLOPs at the assumed rate, plus kernel launches of every batch."""
    encoder = work.encoder_flops / ((gpu.bf16 if in_bf16 else gpu.fp32) * utilisation)
    head = work.head_flops / (gpu.fp32 * utilisation)
    launches = work.tokens / batch_tokens * layers * KERNELS_PER_LAYER * SECONDS_PER_KERNEL
    return encoder + head + launches


def wall_seconds(work: Work, actor_seconds: float, actors: int) -> float:
    """Seconds until the last of `actors` equal actors has finished. `actor_seconds`: total over all actors."""
    one_shard = actor_seconds * min(work.shard_rows, work.rows) / work.rows
    return math.ceil(work.shards / actors) * one_shard
