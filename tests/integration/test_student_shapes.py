"""Students with fewer heads and pruned vocabularies: from `trainer general` to a model that transformers loads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers

from shared.embedded import resolve_encoder
from tests.support.command import call_main
from tests.support.distillation import Output, metrics_of, save_dev, save_teacher
from trainer.models import load_classifier, load_tokenizer

WORDS = ["the", "good", "movie", "and", "a", "bad", "plot", "of", "the", "lazy", "dog", "near", "the", "quick", "river"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    save_teacher(folder / "teacher")
    save_dev(folder / "dev.tsv")
    Output(folder / "augmented", num_rows=60).finish()
    lines = [
        " ".join(WORDS[(line * 3 + place) % len(WORDS)] for place in range(5 + line % 20)) + "." for line in range(400)
    ]
    (folder / "corpus.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def general(folder: Path, output: Path, *more: str) -> list[str]:
    return [
        "general", "--corpus", str(folder / "corpus.txt"), "--teacher", str(folder / "teacher"),
        "--student", "2,16,32,2", "--embedding-init", "weighted", "--projection-init",
        "fitted", "--projection", "per-layer", "--pairs", "0.5",
        "--held-out", "0.1", "--evaluate-tokens", "2000", "--loss-weights", "pooled=1", "--decay-share", "0.3",
        "--max-length", "32", "--batch-size", "8", "--epochs", "2", "--lr", "1e-2", "--loader-workers", "0",
        "--threads", "1", "--output", str(output), *more,
    ]  # fmt: skip


def task(folder: Path, output: Path, *more: str) -> list[str]:
    return [
        "task", "--task", "SST-2", "--augmented", str(folder / "augmented"), "--teacher", str(folder / "teacher"),
        "--student", str(folder / "general" / "model"), "--dev", str(folder / "dev.tsv"), "--output", str(output),
        "--epochs", "1", "--prediction-epochs", "1", "--lr", "1e-3", "--prediction-lr", "1e-3", "--batch-size", "8",
        "--window-shards", "2", "--loader-workers", "0", "--threads", "1", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def general_run(folder: Path) -> Path:
    finished = call_main(*general(folder, folder / "general"), program="trainer")
    assert finished.returncode == 0, finished.stderr
    return folder / "general"


def test_general_distillation_shows_what_the_student_explains(general_run: Path) -> None:
    lines = metrics_of(general_run)
    shares = [line["unexplained"] for line in lines if "unexplained" in line]
    assert len(shares) >= 2
    assert list(shares[0]) == ["embedding", "layer_1", "layer_2", "pooled"]
    assert shares[-1]["layer_2"] < shares[0]["layer_2"]
    losses = next(line for line in lines if "loss" in line)
    assert "loss_pooled" in losses
    assert "loss_attention" not in losses
    assert (general_run / "model" / "projections.safetensors").is_file()


def test_a_pruned_student_reads_through_its_own_small_tokenizer(folder: Path, general_run: Path) -> None:
    output = folder / "pruned"
    finished = call_main(*task(folder, output, "--prune-vocabulary", "auto"), "--json", program="trainer")
    assert finished.returncode == 0, finished.stderr
    tokenizer = transformers.AutoTokenizer.from_pretrained(output / "model")
    theirs = transformers.AutoTokenizer.from_pretrained(folder / "teacher")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(output / "model")
    assert len(tokenizer) == model.config.vocab_size < len(theirs)
    assert (output / "model" / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1] == [
        token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    ]
    with torch.no_grad():
        logits = model(**tokenizer(["an unheard of movie"], return_tensors="pt")).logits
    assert logits.shape == (1, 2)
    result = json.loads(finished.stdout)
    assert result["parameters"] < json.loads((general_run / "result.json").read_text())["parameters"]
    arguments = ["--task", "SST-2", "--model", str(output / "model"), "--data", str(folder / "dev.tsv")]
    scored = json.loads(call_main("evaluate", *arguments, program="trainer").stdout)
    assert scored["metrics"] == pytest.approx(result["dev"])


def test_a_pruned_student_can_be_distilled_further_but_not_pruned_twice(folder: Path, general_run: Path) -> None:
    first = folder / "first-stage"
    options = ("--prune-vocabulary", "auto", "--stages", "intermediate")
    finished = call_main(*task(folder, first, *options), program="trainer")
    assert finished.returncode == 0, finished.stderr
    second = ["--student", str(first / "model"), "--stages", "prediction"]
    finished = call_main(*task(folder, folder / "second-stage", *second), program="trainer")
    assert finished.returncode == 0, finished.stderr
    sizes = [
        transformers.AutoConfig.from_pretrained(folder / name / "model").vocab_size
        for name in ("first-stage", "second-stage")
    ]
    assert sizes[0] == sizes[1]
    again = call_main(*task(folder, folder / "again", *second, "--prune-vocabulary", "auto"), program="trainer")
    assert again.returncode == 2
    assert "is already pruned" in again.stderr
    pruned = call_main(*general(folder, folder / "no", "--student", str(first / "model")), program="trainer")
    assert pruned.returncode == 2
    assert "has a pruned vocabulary" in pruned.stderr


def test_options_that_do_not_fit_are_refused(folder: Path, general_run: Path) -> None:
    scores = call_main(*task(folder, folder / "scores", "--attention-loss", "scores"), program="trainer")
    assert scores.returncode == 2
    assert "--attention-loss scores needs equal numbers" in scores.stderr
    weighted = ("--student", "2,16,32,4", "--embedding-init", "weighted")
    finished = call_main(*task(folder, folder / "weighted", *weighted), program="trainer")
    assert finished.returncode == 2
    assert "works only in `trainer general`" in finished.stderr


def test_the_embedded_student_learns_a_task_and_is_pruned_to_3_million_parameters(folder: Path) -> None:
    teacher = folder / "embedded-teacher"
    encoder = resolve_encoder("embedded")
    torch.manual_seed(0)
    load_classifier(encoder, 2).save_pretrained(teacher)
    load_tokenizer(encoder).save_pretrained(teacher)
    output = folder / "from-embedded"
    options = ("--teacher", str(teacher), "--student", "embedded", "--prune-vocabulary", "auto")
    finished = call_main(*task(folder, output, *options), "--json", program="trainer")
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["parameters"] <= 3_000_000
    config = transformers.AutoConfig.from_pretrained(output / "model")
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (144, 3, 4)
    other = call_main(*task(folder, folder / "other-vocabulary", "--student", "embedded"), program="trainer")
    assert other.returncode == 1
    assert "this teacher has a different one" in other.stderr
