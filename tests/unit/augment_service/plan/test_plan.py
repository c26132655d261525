"""The arithmetic of a plan, and the plan of a small job compared with what that job then does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from augment_service.cli import main
from augment_service.config import PlanConfig
from augment_service.engine.flops import ModelCost, model_cost
from augment_service.plan.budget import LEAST_BLOCKS, next_block, relative_error, warm_up_rows
from augment_service.plan.calibrate import Bench
from augment_service.plan.estimate import (
    Block,
    Count,
    Loaded,
    Measurement,
    Passes,
    SecondsByLength,
    TypicalInput,
    Work,
    core_share,
    distinct_words,
    gpu_model_seconds,
    merge,
    typical_lengths,
    wall_seconds,
    whole_job,
)
from augment_service.plan.gpus import GPUS, KERNELS_PER_LAYER, SECONDS_PER_KERNEL, find_gpu
from augment_service.plan.measure import measure
from shared.errors import UsageError
from shared.inputs.rows import SourceRow
from shared.schema import samples_schema
from tests.support.models import save_random_model, save_random_vectors

COST = ModelCost(layers=2, linear=1e6, attention=1e3, head=5e5)
CURVE = SecondsByLength({3: 0.001, 512: 0.3})
counts = st.builds(Count, inputs=st.integers(1, 1000), answers=st.integers(1, 1000))
passes_of_rows = st.builds(Passes, st.dictionaries(st.integers(3, 512), counts, min_size=1, max_size=30))


def passes_of(by_length: dict[int, tuple[int, int]]) -> Passes:
    """From length -> (inputs, answers)."""
    return Passes({length: Count(inputs=one[0], answers=one[1]) for length, one in by_length.items()})


def measurement(passes: Passes, curve: SecondsByLength | None = CURVE, asked: int = 1) -> Measurement:
    """100 rows took 30 s, of which 20 in the model and 2 in the vectors; half of a core; `asked` inputs per pass."""
    block = Block(
        rows=100,
        samples=2000,
        num_bytes=100_000,
        seconds=30.0,
        cpu_seconds=15.0,
        model_seconds=20.0,
        model_inputs=asked * passes.inputs,
        vector_seconds=2.0,
        vector_words=10,
        passes=passes,
    )
    return Measurement(
        loaded=Loaded(cost=COST, device="cpu", dtype="fp32"),
        num_processes=1,
        counted=[passes],
        counted_rows=100,
        curve=curve,
        blocks=[block],
        start_seconds=0.0,
    )


def work(rows: int, shard_rows: int) -> Work:
    return Work(
        rows=rows,
        shard_rows=shard_rows,
        inputs=0,
        tokens=1e6,
        encoder_flops=3e15,
        head_flops=1e13,
        samples=0,
        num_bytes=0,
        cpu_model_seconds=0,
        vector_seconds=0,
        rest_seconds=0,
    )


@settings(deadline=None, max_examples=60)
@given(passes_of_rows)
def test_a_job_of_the_measured_rows_takes_the_measured_time(passes: Passes) -> None:
    done = whole_job(rows=100, shard_rows=10, measured=measurement(passes), pace=1.0)
    assert done.cpu_model_seconds == pytest.approx(20.0)
    assert done.rest_seconds == pytest.approx(8.0)
    assert (done.samples, done.num_bytes, done.shards) == (2000, 100_000, 10)
    assert done.inputs == pytest.approx(passes.inputs)


def test_without_times_by_length_the_blocks_alone_give_the_time() -> None:
    measured = measurement(passes_of({10: (100, 100), 40: (5, 5)}), curve=None)
    done = whole_job(rows=200, shard_rows=10, measured=measured, pace=1.0)
    assert done.cpu_model_seconds == pytest.approx(40.0)
    assert done.rest_seconds == pytest.approx(16.0)


@settings(deadline=None, max_examples=300)
@given(st.floats(1e-6, 100), st.floats(0, 60), st.lists(st.integers(1, 100_000), min_size=1, max_size=40))
def test_blocks_fit_into_the_time_or_are_the_least_possible(
    seconds_per_row: float, seconds: float, characters: list[int]
) -> None:
    least = warm_up_rows(characters)
    assert 1 <= least <= 16
    assert least == 1 or sum(characters[: least - 1]) < 4096
    done = [(least, least * seconds_per_row)]
    while len(done) < 30 and (size := next_block(done, seconds)):
        done.append((size, size * seconds_per_row))
    assert len(done) > LEAST_BLOCKS
    # Every row costs at most the time that was given, or as much as the few rows that are always measured.
    allowed = max(seconds, (1 + LEAST_BLOCKS) * least * seconds_per_row)
    assert sum(spent for _, spent in done) <= allowed * (1 + 1e-9)


def test_an_error_is_that_of_the_rate() -> None:
    assert relative_error([(10, 5.0)]) is None
    assert relative_error([(10, 5.0), (40, 20.0)]) == 0
    # Rates of 0.9 and 1.1 have a standard error of 0.1 around 1.
    assert relative_error([(10, 9.0), (10, 11.0)]) == pytest.approx(0.2)


class _SlowBench(Bench):
    """Counts and processes rows that each take a second, by a clock of its own."""

    def __init__(self, clock: list[float]) -> None:
        self.clock, self.rows = clock, 0

    def _passes(self, rows: Sequence[SourceRow]) -> Passes:
        self.clock[0] += len(rows)
        return passes_of({10: (len(rows), len(rows))})

    def _block(self, rows: Sequence[SourceRow], schema: pa.Schema, folder: str, shard: int) -> Block:
        self.rows += len(rows)
        return replace(measurement(self._passes(rows)).blocks[0], rows=len(rows), seconds=float(len(rows)))


@pytest.mark.parametrize(("seconds", "num_counted", "num_rows"), [(0.0, 2, 48), (1100.0, 3, 1100), (2000.0, 4, 2000)])
def test_a_calibration_does_as_much_as_its_time_allows(
    monkeypatch: pytest.MonkeyPatch, seconds: float, num_counted: int, num_rows: int
) -> None:
    clock = [0.0]
    monkeypatch.setattr("augment_service.plan.calibrate.time.perf_counter", lambda: clock[0])
    rows = [SourceRow(number, "a good movie" * 12) for number in range(2000)]
    bench = _SlowBench(clock)
    assert len(bench.count([rows[:350]] * 4, seconds)) == num_counted
    blocks = bench.time_rows(rows, samples_schema(pa.string(), []), seconds)
    # The last block ends where less than a warm-up would still fit.
    assert num_rows - 16 < bench.rows <= num_rows
    assert bench.rows - 16 == sum(block.rows for block in blocks)


def test_time_that_other_processes_took_is_not_counted() -> None:
    measured = measurement(passes_of({10: (100, 100)}), SecondsByLength({10: 0.1}))
    assert core_share(measured.blocks) == 0.5
    alone = whole_job(rows=100, shard_rows=10, measured=measured, pace=core_share(measured.blocks))
    assert alone.cpu_model_seconds == pytest.approx(10.0)
    assert alone.rest_seconds == pytest.approx(4.0)


@settings(deadline=None, max_examples=60)
@given(passes_of_rows, st.integers(2, 50), st.integers(1, 5))
def test_a_job_scales_with_its_rows_and_with_the_inputs_of_a_conditioning(
    passes: Passes, factor: int, asked: int
) -> None:
    one = whole_job(rows=100, shard_rows=10, measured=measurement(passes), pace=1.0)
    many = whole_job(rows=100 * factor, shard_rows=10, measured=measurement(passes, asked=asked), pace=1.0)
    assert many.cpu_model_seconds == pytest.approx(one.cpu_model_seconds * factor)
    assert many.tokens == pytest.approx(one.tokens * factor * asked)
    assert many.encoder_flops == pytest.approx(one.encoder_flops * factor * asked)


@settings(deadline=None, max_examples=60)
@given(passes_of_rows)
def test_lengths_to_measure_span_those_that_were_counted(passes: Passes) -> None:
    lengths = [one.length for one in typical_lengths(passes)]
    assert lengths == sorted(set(lengths))
    assert set(lengths) <= set(passes.by_length)
    assert (lengths[0], lengths[-1]) == (min(passes.by_length), max(passes.by_length))
    assert len(lengths) <= 8


def test_a_typical_input_has_the_usual_number_of_answers() -> None:
    assert typical_lengths(passes_of({7: (10, 24)})) == [TypicalInput(length=7, answers=2)]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 512))
def test_seconds_between_measured_lengths_are_linear_per_token(length: int) -> None:
    curve = SecondsByLength({10: 10 * 1.0, 20: 20 * 3.0})
    per_token = curve.of(passes_of({length: (1, 1)})) / length
    assert per_token == pytest.approx(min(max(1.0 + (length - 10) / 10 * 2.0, 1.0), 3.0))


def test_distinct_words_grow_as_in_the_sample() -> None:
    same = [Passes({}, frozenset("abc"))] * 4
    assert distinct_words(same, 4, 4000) == 3
    new = [Passes({}, frozenset({f"{part}-{word}" for word in range(10)})) for part in range(4)]
    assert distinct_words(new, 4, 40) == pytest.approx(400)
    assert distinct_words(new, 4, 4) == pytest.approx(40)
    assert distinct_words([Passes({})] * 3, 3, 30) == 0


def test_merging_adds_per_length() -> None:
    merged = merge([passes_of({5: (1, 2), 7: (1, 1)}), passes_of({5: (3, 4)})])
    assert merged == passes_of({5: (4, 6), 7: (1, 1)})
    assert (merged.inputs, merged.tokens, merged.answers) == (5, 27, 7)


def test_the_time_of_a_gpu_is_operations_at_the_assumed_rate_plus_kernel_launches() -> None:
    gpu = find_gpu("a100")
    assert gpu is GPUS["a100"]
    assert gpu is not None

    def seconds(in_bf16: bool) -> float:
        return gpu_model_seconds(work(100, 10), gpu, utilisation=0.5, in_bf16=in_bf16, layers=12, batch_tokens=1000)

    launches = 1e6 / 1000 * 12 * KERNELS_PER_LAYER * SECONDS_PER_KERNEL
    assert seconds(True) == pytest.approx(3e15 / (312e12 * 0.5) + 1e13 / (19.5e12 * 0.5) + launches)
    assert seconds(False) > seconds(True)


def test_gpus_are_named_or_given_by_their_peaks() -> None:
    assert find_gpu("none") is None
    custom = find_gpu("312/19.5")
    assert custom is not None
    assert (custom.bf16, custom.fp32) == (312e12, 19.5e12)
    for wrong in ("A1000", "312/", "fast/slow", "0/1"):
        with pytest.raises(UsageError, match="A100"):
            find_gpu(wrong)


@pytest.mark.parametrize(
    ("rows", "shard_rows", "actors", "wall"),
    [(1000, 100, 1, 10.0), (1000, 100, 10, 1.0), (1000, 100, 20, 1.0), (1000, 100, 3, 4.0), (50, 100, 2, 10.0)],
)
def test_a_shard_is_never_shared(rows: int, shard_rows: int, actors: int, wall: float) -> None:
    assert wall_seconds(work(rows, shard_rows), 10.0, actors) == pytest.approx(wall)


def test_cost_of_bert_base_is_that_of_its_linear_layers() -> None:
    config = transformers.BertConfig(
        hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=192, vocab_size=100
    )
    model = transformers.BertForMaskedLM(config)
    layer = 2 * (4 * 48 * 48 + 2 * 48 * 192)
    whole = model_cost(model, last_layer_is_cut=False)
    cut = model_cost(model, last_layer_is_cut=True)
    assert whole == ModelCost(3, 3.0 * layer, 4.0 * 48 * 3, 2.0 * (48 * 48 + 48 * 100))
    assert cut.linear == 2 * layer + 2 * 3 * 48 * 48
    assert whole.encoder(10) == 10 * whole.linear + 100 * whole.attention


@pytest.mark.slow
def test_a_plan_predicts_what_the_run_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = tmp_path / "corpus.tsv"
    sentence = "the quick brown fox number {} jumps over a good movie with bad acting"
    rows = [f"{sentence.format(row)} and {' honestly' * (row % 7)}\t{row % 2}" for row in range(300)]
    rows[11] = "one column"
    corpus.write_text("\n".join(["text\tlabel", *rows]) + "\n", encoding="utf-8")
    model, vectors = save_random_model("bert-uncased", tmp_path / "model"), save_random_vectors(tmp_path / "glove.txt")
    options = ["--input", str(corpus), "--text-column", "text", "--label-column", "label"]
    options += ["--shard-rows", "64", "--n-a", "5", "--mlm", str(model), "--glove", str(vectors), "--json"]
    assert main(["plan", *options, "--calibrate-seconds", "1"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert main(["run", *options, "--output", str(tmp_path / "out")]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (planned["rows"], planned["shards"]) == (300, done["shards"])
    assert planned["quarantined"] == done["quarantined"] == 1
    assert planned["samples"] == pytest.approx(done["samples"], rel=0.05)
    assert planned["bytes"] == pytest.approx(done["bytes"], rel=0.25)
    assert planned["seconds"] > 0
    assert main(["plan", *options, "--calibrate-seconds", "1", "--gpu", "A100", "--nodes", "3"]) == 0
    on_gpus = json.loads(capsys.readouterr().out)
    assert (on_gpus["masked_passes"], on_gpus["actors"]) == (planned["masked_passes"], 3)
    assert on_gpus["assumed"]["bf16_flops"] == 312e12
    assert not (tmp_path / "plan").exists()


def test_wrong_options_of_plan_are_reported_before_anything_loads(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--input", "gone.tsv", "--task", "SST-2", "--gpu", "Voodoo"]) == 2
    assert "Voodoo" in capsys.readouterr().err
    assert main(["plan", "--input", "gone.tsv", "--task", "SST-2", "--nodes", "0"]) == 2
    assert "--nodes" in capsys.readouterr().err
    assert main(["plan", "--input", "gone.tsv", "--task", "SST-2"]) == 1
    assert "gone.tsv" in capsys.readouterr().err


@pytest.mark.slow
def test_large_batches_of_a_gpu_do_not_make_the_measurement_longer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = tmp_path / "corpus.tsv"
    corpus.write_text("text\n" + "a good movie with a bad plot\n" * 50, encoding="utf-8")
    model, vectors = save_random_model("bert-uncased", tmp_path / "model"), save_random_vectors(tmp_path / "glove.txt")
    options = ["--input", str(corpus), "--text-column", "text", "--mlm", str(model), "--glove", str(vectors)]
    measured: list[int] = []

    def spied(config: PlanConfig, *arguments: Any, **options: Any) -> Measurement:
        assert config.batch_tokens is not None
        measured.append(config.batch_tokens)
        return measure(config, *arguments, **options)

    monkeypatch.setattr("augment_service.plan.measure.measure", spied)
    times = []
    for batch_tokens in ("1024", "16384"):
        assert main(["plan", *options, "--gpu", "H100", "--batch-tokens", batch_tokens, "--json"]) == 0
        times.append(json.loads(capsys.readouterr().out)["seconds"])
    assert measured == [1024, 1024]
    assert times[1] <= times[0] * 3
