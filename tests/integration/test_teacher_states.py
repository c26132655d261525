"""`trainer task` with teachers that are built like a BERT: their states, their answers, kills, other vocabularies."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from shared.embedded import EMBEDDED, resolve_encoder
from tests.support.classifiers import save_classifier_of
from tests.support.command import call_main, run_command
from tests.support.distillation import Output, metrics_of, save_dev, source_rows
from trainer.teacher_states import load_with_states

KINDS = ("electra", "electra-narrow", "distilbert", "roberta")
LABELS = ("0", "1")


class Story:
    """A finished augmentation output, its dev file, and teachers with small vocabularies of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dev = save_dev(folder / "dev.tsv")
        self.augmented = folder / "augmented"
        Output(self.augmented, num_rows=36).finish()
        self.teachers = {kind: save_classifier_of(kind, folder / kind, LABELS) for kind in KINDS}

    def task(self, teacher: Path, output: Path, *more: str, student: str = "2,16,32,4") -> list[str]:
        return [
            *("task", "--task", "SST-2", "--augmented", str(self.augmented), "--teacher", str(teacher)),
            *("--student", student, "--dev", str(self.dev), "--output", str(output), "--lr", "1e-3"),
            *("--epochs", "1", "--prediction-epochs", "1", "--prediction-lr", "1e-3", "--batch-size", "8"),
            *("--window-shards", "2", "--loader-workers", "0", "--threads", "1", *more),
        ]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return Story(tmp_path_factory.mktemp("story"))


def train(*arguments: str) -> str:
    finished = call_main(*arguments, program="trainer")
    assert finished.returncode == 0, finished.stderr
    return finished.stderr


def weights_of(output: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_file(output / "model" / "model.safetensors")
    return weights


@pytest.mark.parametrize("kind", KINDS)
def test_the_student_learns_states_and_answers_of_its_teacher(story: Story, tmp_path: Path, kind: str) -> None:
    output, teacher = tmp_path / "out", story.teachers[kind]
    said = train(*story.task(teacher, output))
    assert "states_of_teacher" in said
    assert "answers_only" not in said
    losses = [line for line in metrics_of(output) if "loss" in line]
    assert {"loss_attention", "loss_hidden", "loss_embedding"} <= losses[0].keys()
    assert {line["stage"] for line in losses} == {"intermediate", "prediction"}
    result = json.loads((output / "result.json").read_text())
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(teacher)
    assert result["teacher_parameters"] == sum(weight.numel() for weight in plain.parameters())
    assert result["teacher_dev"]
    student = transformers.AutoModelForSequenceClassification.from_pretrained(output / "model")
    tokenizers = [transformers.AutoTokenizer.from_pretrained(one) for one in (teacher, output / "model")]
    assert tokenizers[0].get_vocab() == tokenizers[1].get_vocab()
    with torch.no_grad():
        assert student(**tokenizers[1](["the good movie"], return_tensors="pt")).logits.shape == (1, 2)


@pytest.mark.parametrize("kind", ["electra", "distilbert", "roberta"])
def test_the_losses_are_those_of_the_same_weights_as_a_bert(story: Story, tmp_path: Path, kind: str) -> None:
    _, states, tokenizer = load_with_states(str(story.teachers[kind]))
    states.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    lines = []
    for name, teacher in (("own", story.teachers[kind]), ("as-bert", tmp_path / "bert")):
        train(*story.task(teacher, tmp_path / name, "--stages", "intermediate", "--dtype", "fp32"))
        lines.append(metrics_of(tmp_path / name))
    assert lines[0] == lines[1]
    assert lines[0]


@pytest.mark.parametrize("kind", KINDS)
def test_live_answers_are_the_stored_ones(story: Story, tmp_path: Path, kind: str) -> None:
    teacher, augmented = story.teachers[kind], tmp_path / "augmented"
    Output(augmented, num_rows=36).finish()
    train("annotate", "--augmented", str(augmented), "--teacher", str(teacher), "--dtype", "fp32", "--threads", "1")
    losses = []
    for name, options in (("live", ()), ("stored", ("--annotated",))):
        common = ("--stages", "prediction", "--dtype", "fp32", "--dropout", "0", "--augmented", str(augmented))
        train(*story.task(teacher, tmp_path / name, *common, *options))
        losses.append([line["loss"] for line in metrics_of(tmp_path / name) if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["electra-narrow", "roberta"])
def test_killed_and_resumed_it_ends_with_the_same_bits(story: Story, tmp_path: Path, kind: str) -> None:
    undisturbed, output = tmp_path / "undisturbed", tmp_path / "killed"
    train(*story.task(story.teachers[kind], undisturbed))
    again = story.task(story.teachers[kind], output, "--checkpoint-seconds", "0.001")
    killed = run_command("0", *again, program="tests.support.killed_trainer")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    finished = run_command(*again, program="trainer")
    assert finished.returncode == 0, finished.stderr
    assert "resumed" in finished.stderr
    before, after = weights_of(undisturbed), weights_of(output)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert metrics_of(output) == metrics_of(undisturbed)


@pytest.mark.parametrize("kind", ["electra-narrow", "distilbert"])
def test_the_embedded_student_learns_from_a_teacher_with_its_vocabulary(
    story: Story, tmp_path: Path, kind: str
) -> None:
    teacher = save_classifier_of(kind, tmp_path / kind, LABELS, resolve_encoder(EMBEDDED), layers=3)
    options = ("--prune-vocabulary", "auto", "--stages", "intermediate")
    said = train(*story.task(teacher, tmp_path / "out", *options, student="embedded"))
    assert "states_of_teacher" in said
    maps = load_file(tmp_path / "out" / "model" / "projections.safetensors")
    # As wide as this teacher, not as the embedded encoder.
    assert maps["maps.0.weight"].shape == (32, 144)


@pytest.mark.parametrize("kind", ["electra", "distilbert"])
def test_with_another_vocabulary_a_teacher_only_answers(story: Story, tmp_path: Path, kind: str) -> None:
    finished = call_main(*story.task(story.teachers[kind], tmp_path / "out", student="embedded"), program="trainer")
    assert finished.returncode == 2
    assert "because the student has a different vocabulary" in finished.stderr.splitlines()[-1]
    assert "Store its logits first" in finished.stderr.splitlines()[-1]


def test_a_run_that_learned_other_states_is_not_continued(story: Story, tmp_path: Path) -> None:
    """A run of an earlier version took its states from the embedded encoder."""
    teacher, output = story.teachers["electra"], tmp_path / "out"
    arguments = story.task(teacher, output, "--stages", "intermediate", "--checkpoint-seconds", "0.001")
    killed = run_command("0", *arguments, program="tests.support.killed_trainer")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    path = output / "checkpoint.pt"
    content = torch.load(path, weights_only=True)
    content["inputs"]["teacher"] = content["inputs"]["teacher"].partition(",")[0]
    torch.save(content, path)
    finished = call_main(*arguments, program="trainer")
    assert finished.returncode == 1
    assert "was started with a different teacher" in finished.stderr.splitlines()[-1]


def general(story: Story, kind: str, output: Path, *more: str) -> list[str]:
    corpus = story.folder / "corpus.txt"
    corpus.write_text("\n".join(f"{row.text_a} . {row.text_a} !" for row in source_rows(150)) + "\n", encoding="utf-8")
    return [
        *("general", "--corpus", str(corpus), "--teacher", str(story.teachers[kind]), "--student", "2,16,32,4"),
        *("--embedding-init", "weighted", "--projection-init", "fitted", "--held-out", "0.1", "--max-length", "32"),
        *("--evaluate-tokens", "2000", "--epochs", "2", "--lr", "1e-2", "--batch-size", "8", "--loader-workers", "0"),
        *("--threads", "1", "--output", str(output), *more),
    ]


@pytest.mark.parametrize(("kind", "pairs"), [("electra-narrow", "0.5"), ("distilbert", "0.5"), ("roberta", "0")])
def test_a_general_student_learns_from_an_encoder_and_then_from_its_classifier(
    story: Story, tmp_path: Path, kind: str, pairs: str
) -> None:
    train(*general(story, kind, tmp_path / "general", "--pairs", pairs))
    shares = [line["unexplained"] for line in metrics_of(tmp_path / "general") if "unexplained" in line]
    assert shares[-1]["layer_2"] < shares[0]["layer_2"]
    said = train(*story.task(story.teachers[kind], tmp_path / "task", student=str(tmp_path / "general")))
    assert "states_of_teacher" in said


def test_a_roberta_separates_pairs_otherwise_than_its_student(story: Story, tmp_path: Path) -> None:
    finished = call_main(*general(story, "roberta", tmp_path / "out", "--pairs", "0.5"), program="trainer")
    assert finished.returncode == 2
    assert "separates the texts of a pair differently" in finished.stderr.splitlines()[-1]
