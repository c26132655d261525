"""The arithmetic of a plan, and the plan of a small job beside what that job then does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from augment_service.cli import main
from augment_service.engine.flops import ModelCost, model_cost
from augment_service.plan.estimate import (
    Block,
    Passes,
    SecondsByLength,
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
from shared.errors import UsageError
from tests.support.models import save_random_model, save_random_vectors

COST = ModelCost(layers=2, linear=1e6, attention=1e3, head=5e5)
histograms = st.dictionaries(
    st.integers(3, 512), st.tuples(st.integers(1, 1000), st.integers(1, 1000)), min_size=1, max_size=30
)


def block(rows: int, seconds: float, model_seconds: float, passes: Passes, asked: int = 1) -> Block:
    inputs = asked * sum(count for count, _ in passes.by_length.values())
    return Block(rows, rows * 20, rows * 1000, seconds, seconds / 2, model_seconds, inputs, 2.0, 10, passes)


def work(rows: int, shard_rows: int) -> Work:
    return Work(rows, shard_rows, 0, 1e6, 3e15, 1e13, 0, 0, 0, 0, 0)


@settings(deadline=None, max_examples=60)
@given(histograms)
def test_a_job_of_what_was_measured_takes_what_was_measured(histogram: dict[int, tuple[int, int]]) -> None:
    passes = Passes(histogram)
    curve = SecondsByLength([(3, 0.001), (512, 0.3)])
    done = whole_job(100, 10, [passes], 100, COST, curve, [block(100, 30.0, 20.0, passes)], 1.0)
    assert done.cpu_model_seconds == pytest.approx(20.0)
    assert done.rest_seconds == pytest.approx(8.0)
    assert (done.samples, done.num_bytes, done.shards) == (2000, 100_000, 10)
    assert done.inputs == pytest.approx(sum(count for count, _ in histogram.values()))


def test_time_that_others_took_is_not_the_jobs() -> None:
    passes = Passes({10: (100, 100)})
    blocks = [block(100, 30.0, 20.0, passes)]
    assert core_share(blocks) == 0.5
    curve = SecondsByLength([(10, 0.1)])
    alone = whole_job(100, 10, [passes], 100, COST, curve, blocks, core_share(blocks))
    assert alone.cpu_model_seconds == pytest.approx(10.0)
    assert alone.rest_seconds == pytest.approx(4.0)


@settings(deadline=None, max_examples=60)
@given(histograms, st.integers(2, 50), st.integers(1, 5))
def test_a_job_scales_with_its_rows_and_with_what_a_conditioning_asks(
    histogram: dict[int, tuple[int, int]], factor: int, asked: int
) -> None:
    passes = Passes(histogram)
    curve = SecondsByLength([(3, 0.001), (512, 0.3)])
    one = whole_job(100, 10, [passes], 100, COST, curve, [block(100, 30.0, 20.0, passes)], 1.0)
    many = whole_job(100 * factor, 10, [passes], 100, COST, curve, [block(100, 30.0, 20.0, passes, asked)], 1.0)
    assert many.cpu_model_seconds == pytest.approx(one.cpu_model_seconds * factor)
    assert many.tokens == pytest.approx(one.tokens * factor * asked)
    assert many.encoder_flops == pytest.approx(one.encoder_flops * factor * asked)


@settings(deadline=None, max_examples=60)
@given(histograms)
def test_lengths_to_measure_span_what_was_counted(histogram: dict[int, tuple[int, int]]) -> None:
    lengths = [length for length, _ in typical_lengths(Passes(histogram))]
    assert lengths == sorted(set(lengths))
    assert set(lengths) <= set(histogram)
    assert (lengths[0], lengths[-1]) == (min(histogram), max(histogram))
    assert len(lengths) <= 8


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 512))
def test_seconds_between_measured_lengths_are_linear_per_piece(length: int) -> None:
    curve = SecondsByLength([(10, 10 * 1.0), (20, 20 * 3.0)])
    per_piece = curve.of(Passes({length: (1, 1)})) / length
    assert per_piece == pytest.approx(min(max(1.0 + (length - 10) / 10 * 2.0, 1.0), 3.0))


def test_distinct_words_grow_as_the_sample_shows() -> None:
    same = [Passes({}, frozenset("abc"))] * 4
    assert distinct_words(same, 4, 4000) == 3
    new = [Passes({}, frozenset({f"{part}-{word}" for word in range(10)})) for part in range(4)]
    assert distinct_words(new, 4, 40) == pytest.approx(400)
    assert distinct_words(new, 4, 4) == pytest.approx(40)
    assert distinct_words([Passes({})] * 3, 3, 30) == 0


def test_merging_adds_per_length() -> None:
    assert merge([Passes({5: (1, 2), 7: (1, 1)}), Passes({5: (3, 4)})]).by_length == {5: (4, 6), 7: (1, 1)}


def test_a_gpu_takes_its_operations_at_the_assumed_rate_and_the_start_of_its_kernels() -> None:
    gpu = find_gpu("a100")
    assert gpu is GPUS["a100"]
    assert gpu is not None
    seconds = gpu_model_seconds(work(100, 10), gpu, 0.5, True, layers=12, batch_tokens=1000)
    starts = 1e6 / 1000 * 12 * KERNELS_PER_LAYER * SECONDS_PER_KERNEL
    assert seconds == pytest.approx(3e15 / (312e12 * 0.5) + 1e13 / (19.5e12 * 0.5) + starts)
    slower = gpu_model_seconds(work(100, 10), gpu, 0.5, False, layers=12, batch_tokens=1000)
    assert slower > seconds


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
def test_a_plan_foretells_what_the_run_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = tmp_path / "corpus.tsv"
    sentence = "the quick brown fox number {} jumps over a good movie with bad acting"
    rows = [f"{sentence.format(row)} and {' honestly' * (row % 7)}\t{row % 2}" for row in range(300)]
    rows[11] = "one column"
    corpus.write_text("\n".join(["text\tlabel", *rows]) + "\n", encoding="utf-8")
    options = [
        "--input", str(corpus), "--text-column", "text", "--label-column", "label", "--shard-rows", "64", "--n-a", "5",
        "--mlm", str(save_random_model("bert-uncased", tmp_path / "model")), "--json",
        "--glove", str(save_random_vectors(tmp_path / "glove.txt")),
    ]  # fmt: skip
    assert main(["plan", *options, "--calibrate-seconds", "1"]) == 0
    foretold = json.loads(capsys.readouterr().out)
    assert main(["run", *options, "--output", str(tmp_path / "out")]) == 0
    came = json.loads(capsys.readouterr().out)
    assert (foretold["rows"], foretold["shards"]) == (300, came["shards"])
    assert foretold["quarantined"] == came["quarantined"] == 1
    assert foretold["samples"] == pytest.approx(came["samples"], rel=0.05)
    assert foretold["bytes"] == pytest.approx(came["bytes"], rel=0.25)
    assert foretold["seconds"] > 0
    assert main(["plan", *options, "--calibrate-seconds", "1", "--gpu", "A100", "--nodes", "3"]) == 0
    on_gpus = json.loads(capsys.readouterr().out)
    assert (on_gpus["masked_passes"], on_gpus["actors"]) == (foretold["masked_passes"], 3)
    assert on_gpus["assumed"]["bf16_flops"] == 312e12
    assert not (tmp_path / "plan").exists()


def test_wrong_use_of_plan_is_told_before_anything_loads(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--input", "gone.tsv", "--task", "SST-2", "--gpu", "Voodoo"]) == 2
    assert "Voodoo" in capsys.readouterr().err
    assert main(["plan", "--input", "gone.tsv", "--task", "SST-2", "--nodes", "0"]) == 2
    assert "--nodes" in capsys.readouterr().err
    assert main(["plan", "--input", "gone.tsv", "--task", "SST-2"]) == 1
    assert "gone.tsv" in capsys.readouterr().err
