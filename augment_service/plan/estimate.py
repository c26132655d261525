"""From what a calibration measured to what a whole job takes (pure arithmetic).

The time of a job has two parts. Model passes: on this machine's kind of CPU as measured, by length; on a named GPU from
their floating-point operations, the GPU's peak by data sheet and an assumed utilisation. And all the rest (words,
draws, Arrow, commits), which runs on CPUs wherever the model runs, as measured here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from augment_service.engine.flops import ModelCost
from augment_service.plan.gpus import KERNELS_PER_LAYER, SECONDS_PER_KERNEL, Gpu


@dataclass(frozen=True, slots=True)
class Passes:
    """Distinct model inputs: length in pieces -> (inputs, answers wanted); and distinct words for the vectors."""

    by_length: Mapping[int, tuple[int, int]]
    words: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the models are: what one input costs, where they compute and in which precision."""

    cost: ModelCost
    device: str
    dtype: str


@dataclass(frozen=True, slots=True)
class Block:
    """Rows done as the job does them.

    cpu_seconds: what the process had of a core meanwhile; model_inputs: how many the model was really asked;
    vector_words: how many words were looked up among the vectors for the first time, in vector_seconds.
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
    """Measured seconds of one model input, by its length in pieces; between two lengths, linear per piece."""

    measured: Sequence[tuple[int, float]]

    def of(self, passes: Passes) -> float:
        """Seconds of one process for these inputs."""
        return sum(count * self._one(length) for length, (count, _) in passes.by_length.items())

    def _one(self, length: int) -> float:
        lower, lower_seconds = self.measured[0]
        for upper, seconds in self.measured:
            if length <= upper:
                low, high = lower_seconds / lower, seconds / upper
                share = (length - lower) / (upper - lower) if upper > lower and length > lower else 0.0
                return length * (low + share * (high - low)) if length > lower else length * low
            lower, lower_seconds = upper, seconds
        return length * lower_seconds / lower


def merge(parts: Sequence[Passes]) -> Passes:
    """All inputs of several shards."""
    total: dict[int, tuple[int, int]] = {}
    for part in parts:
        for length, (inputs, answers) in part.by_length.items():
            before = total.get(length, (0, 0))
            total[length] = (before[0] + inputs, before[1] + answers)
    return Passes(dict(sorted(total.items())), frozenset().union(*(part.words for part in parts)))


def distinct_words(parts: Sequence[Passes], places: int, rows: int) -> float:
    """Distinct words in `rows` rows, from parts that took `places` of them: they grow with a power of the rows, which
    the first half of the parts and all of them show (Heaps' law)."""
    whole = len(merge(parts).words)
    half = len(merge(parts[: len(parts) // 2]).words)
    if not half or whole <= half:
        return float(whole)
    power = min(math.log(whole / half) / math.log(len(parts) / (len(parts) // 2)), 1.0)
    return float(whole * (rows / places) ** power)


def typical_lengths(passes: Passes, count: int = 6) -> list[tuple[int, int]]:
    """Lengths worth measuring, each with its usual number of answers: the shortest, the longest, and those that split
    all pieces into equal parts."""
    lengths = sorted(passes.by_length)
    total = sum(length * passes.by_length[length][0] for length in lengths)
    chosen, seen = {lengths[0], lengths[-1]}, 0
    for length in lengths:
        before = seen * (count - 1) // total
        seen += length * passes.by_length[length][0]
        if seen * (count - 1) // total > before:
            chosen.add(length)
    return [(one, max(round(passes.by_length[one][1] / passes.by_length[one][0]), 1)) for one in sorted(chosen)]


@dataclass(frozen=True, slots=True)
class Work:
    """A whole job: source rows, shards, and what the model is asked."""

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
        """Units of work and commit."""
        return -(-self.rows // self.shard_rows)


def core_share(blocks: Sequence[Block]) -> float:
    """How much of a core a process had: 1 on an idle machine, less when others want it too."""
    return min(sum(block.cpu_seconds for block in blocks) / sum(block.seconds for block in blocks), 1.0)


def whole_job(
    rows: int, shard_rows: int, parts: Sequence[Passes], counted_rows: int, cost: ModelCost, curve: SecondsByLength,
    blocks: Sequence[Block], pace: float,
) -> Work:  # fmt: skip
    """Scale a count of whole shards (`parts`, `counted_rows` places of the input) by what blocks of rows really took.

    The blocks correct two things that a count cannot know: how many inputs a conditioning asks for per word, and what
    batches of mixed lengths cost beside batches of one length. `pace`: measured seconds count so much.
    """
    counted, scale = merge(parts), rows / counted_rows
    nominal = sum(count for block in blocks for count, _ in block.passes.by_length.values())
    asked = sum(block.model_inputs for block in blocks) / max(nominal, 1)
    by_curve = sum(curve.of(block.passes) for block in blocks) * asked
    correction = sum(block.model_seconds for block in blocks) / by_curve if by_curve else 1.0
    done = sum(block.rows for block in blocks)
    inputs = scale * asked * sum(count for count, _ in counted.by_length.values())
    tokens = scale * asked * sum(length * count for length, (count, _) in counted.by_length.items())
    encoder = sum(cost.encoder(length) * count for length, (count, _) in counted.by_length.items())
    answers = sum(answers for _, answers in counted.by_length.values())
    return Work(
        rows, shard_rows, inputs, tokens, scale * asked * encoder, scale * asked * answers * cost.head,
        rows * sum(block.samples for block in blocks) / done,
        rows * sum(block.num_bytes for block in blocks) / done,
        pace * scale * asked * correction * curve.of(counted),
        pace * distinct_words(parts, counted_rows, rows)
        * sum(block.vector_seconds for block in blocks) / max(sum(block.vector_words for block in blocks), 1),
        pace * rows * sum(block.rest_seconds for block in blocks) / done,
    )  # fmt: skip


def gpu_model_seconds(work: Work, gpu: Gpu, utilisation: float, in_bf16: bool, layers: int, batch_tokens: int) -> float:
    """Seconds of one GPU for all passes: operations at the assumed rate, and the start of every batch's kernels."""
    encoder = work.encoder_flops / ((gpu.bf16 if in_bf16 else gpu.fp32) * utilisation)
    head = work.head_flops / (gpu.fp32 * utilisation)
    starts = work.tokens / batch_tokens * layers * KERNELS_PER_LAYER * SECONDS_PER_KERNEL
    return encoder + head + starts


def wall_seconds(work: Work, actor_seconds: float, actors: int) -> float:
    """When the last of `actors` equal actors has done its last shard. `actor_seconds`: work of all together."""
    one_shard = actor_seconds * min(work.shard_rows, work.rows) / work.rows
    return math.ceil(work.shards / actors) * one_shard
