"""What used to go wrong without a word in training: each is now one clear line, or done right."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from tests.support.command import ROOT, call_main
from tests.support.distillation import Output, save_dev, save_teacher, source_rows

STUDENT = "2,16,32,4"
COMMON = ("--threads", "1", "--loader-workers", "0", "--batch-size", "8", "--device", "cpu", "--dtype", "fp32")


class Story:
    """A teacher, its dev file and a finished augmentation output."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.teacher = save_teacher(folder / "teacher")
        self.dev = save_dev(folder / "dev.tsv")
        self.augmented = folder / "augmented"
        Output(self.augmented, num_rows=18).finish()

    def arguments(self, output: Path | str, *more: str, teacher: Path | None = None) -> list[str]:
        return [
            *("task", "--task", "SST-2", "--augmented", str(self.augmented), "--teacher", str(teacher or self.teacher)),
            *("--student", STUDENT, "--dev", str(self.dev), "--output", str(output), "--epochs", "1"),
            *("--prediction-epochs", "1", "--evaluations", "1", *COMMON, *more),
        ]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return Story(tmp_path_factory.mktemp("story"))


def refused(*arguments: str, code: int = 1, message: str) -> None:
    finished = call_main(*arguments, program="trainer")
    assert finished.returncode == code, finished.stderr
    assert message in finished.stderr.splitlines()[-1]
    assert "unexpected" not in finished.stderr


def done(*arguments: str) -> Any:
    finished = call_main(*arguments, program="trainer")
    assert finished.returncode == 0, finished.stderr
    return finished


def changed(teacher: Path, folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of a model with another config.json."""
    shutil.copytree(teacher, folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    return folder


def names(*labels: str) -> Callable[[dict[str, Any]], object]:
    return lambda config: config.update(id2label={str(index): name for index, name in enumerate(labels)})


def test_nothing_is_written_to_a_folder_named_like_a_uri(
    story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # Of a store that training cannot write to.
    refused(*story.arguments("hdfs://bucket/run"), code=2, message="--output hdfs://bucket/run")
    export = ("export", "--model", str(story.teacher), "--format", "onnx", "--output", "hdfs://bucket/model.onnx")
    refused(*export, code=2, message="hdfs://bucket/model.onnx: an output must be a local path")
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_s_own_label_order_is_kept_and_unknown_names_need_a_map(story: Story, tmp_path: Path) -> None:
    evaluate = ("evaluate", "--task", "SST-2", "--data", str(story.dev), *COMMON[6:])
    scores = {}
    for name, labels, more in (
        ("plain", ("0", "1"), ()),
        ("named", ("Negative", "Positive"), ()),
        ("generic", ("LABEL_0", "LABEL_1"), ()),
        ("mapped", ("bad", "good"), ("--label-map", "bad=0,good=1")),
        ("swapped", ("POSITIVE", "NEGATIVE"), ()),
        ("swapped-map", ("good", "bad"), ("--label-map", "bad=0,good=1")),
    ):
        model = changed(story.teacher, tmp_path / name, names(*labels))
        scores[name] = json.loads(done(*evaluate, "--model", str(model), *more).stdout)["metrics"]["accuracy"]
    assert scores["plain"] == scores["named"] == scores["generic"] == scores["mapped"]
    assert scores["swapped"] == scores["swapped-map"] == pytest.approx(1 - scores["plain"])
    unknown = changed(story.teacher, tmp_path / "unknown", names("bad", "good"))
    refused(*evaluate, "--model", str(unknown), message="--label-map, such as bad=0,good=1")
    refused(*story.arguments(tmp_path / "out", teacher=unknown), message="do not show which is which")


def test_evaluate_fails_when_most_rows_cannot_be_used_or_have_no_label(story: Story, tmp_path: Path) -> None:
    path = tmp_path / "dev.tsv"
    path.write_text("sentence\tlabel\ngood\t1\nbad\t7\nbad\t8\n")
    evaluate = ("evaluate", "--task", "SST-2", "--model", str(story.teacher), "--data", str(path))
    refused(*evaluate, message="2 of 3 rows cannot be used")
    path.write_text("index\tsentence\n0\tgood\n1\tbad\n")
    refused(*evaluate, message="has no labels")


def test_a_weak_teacher_is_reported_before_training(story: Story, tmp_path: Path) -> None:
    stopped = story.arguments(tmp_path / "out", "--student", str(tmp_path))
    finished = call_main(*stopped, program="trainer")
    assert finished.returncode == 1  # nothing was trained
    teacher = changed(story.teacher, tmp_path / "constant", lambda _: None)
    model = transformers.BertForSequenceClassification.from_pretrained(teacher)
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([1.0, 0.0]))
    model.save_pretrained(teacher)
    output = tmp_path / "weak"
    lines = done(*story.arguments(output, "--stages", "prediction", teacher=teacher)).stderr.splitlines()
    events = [line.split()[2] for line in lines if len(line.split()) > 2]
    assert events.index("teacher_is_weak") < events.index("dev")
    assert json.loads((output / "result.json").read_text())["teacher_dev"]["accuracy"] == 0.5


def test_shards_without_rows_are_an_error_only_when_all_are(story: Story, tmp_path: Path) -> None:
    empty, part = Output(tmp_path / "empty", num_rows=12), Output(tmp_path / "part", num_rows=12)
    empty.shards = [[], []]
    part.shards[0] = []
    for output in (empty, part):
        output.finish()
    refused(*story.arguments(tmp_path / "a", "--augmented", str(tmp_path / "empty")), message="has no rows")
    assert not (tmp_path / "a" / "model").exists()
    done("annotate", "--augmented", str(tmp_path / "part"), "--teacher", str(story.teacher), *COMMON[6:])
    prediction = ("--stages", "prediction", "--annotated", "--augmented", str(tmp_path / "part"))
    done(*story.arguments(tmp_path / "b", *prediction))


def test_a_dev_file_of_pairs_does_not_fit_shards_of_single_texts(story: Story, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("a,b,label\n" + "".join(f"{row.text_a},x,{row.label}\n" for row in source_rows(8)))
    arguments = [one for one in story.arguments(tmp_path / "out", "--dev", str(path)) if one not in ("--task", "SST-2")]
    refused(
        *arguments,
        *("--text-column", "a", "b", "--label-column", "label"),
        message="holds single texts, but the dev file",
    )


def test_annotations_of_a_job_that_was_redone_are_refused(story: Story, tmp_path: Path) -> None:
    augmented = tmp_path / "augmented"
    Output(augmented, num_rows=12).finish()
    annotate = ("annotate", "--augmented", str(augmented), "--teacher", str(story.teacher), *COMMON[6:])
    done(*annotate)
    task = story.arguments(
        tmp_path / "out", "--stages", "prediction", "--annotated", "--augmented", str(augmented), "--n-a", "1"
    )
    (facts,) = augmented.glob("annotations/*/annotations.json")
    recorded = json.loads(facts.read_text())
    assert (recorded["dtype"], recorded["n_a"], recorded["max_length"]) == ("float32", 3, 64)
    # The same folder, made again with other options: (source id, n) still fit.
    keep = tmp_path / "annotations"
    shutil.move(augmented / "annotations", keep)
    shutil.rmtree(augmented)
    Output(augmented, num_rows=12, n_a=2).finish()
    shutil.move(keep, augmented / "annotations")
    refused(*task, message="a different version of the augmentation job's output")
    refused(*annotate, message="a different version of the augmentation job's output")
    shutil.rmtree(augmented / "annotations")
    done(*annotate)
    done(*task)
    next(augmented.glob("annotations/*/annotations.json")).unlink()
    shutil.rmtree(tmp_path / "out")
    refused(*task, message="did not record what its logits were computed from")


def test_lengths_and_tokenizers_beyond_the_model_are_refused_before_training(story: Story, tmp_path: Path) -> None:
    refused(*story.arguments(tmp_path / "a", "--max-length", "65"), code=2, message="has 64 positions; use at most 64")
    evaluate = ("evaluate", "--task", "SST-2", "--data", str(story.dev), "--model")
    refused(*evaluate, str(story.teacher), "--max-length", "200", code=2, message="has 64 positions")
    larger = tmp_path / "larger"
    shutil.copytree(story.teacher, larger)
    tokenizer = transformers.AutoTokenizer.from_pretrained(larger)
    tokenizer.add_tokens(["[url]"])
    tokenizer.save_pretrained(larger)
    refused(*evaluate, str(larger), message="resize the embeddings")


def test_a_run_folder_is_a_model_and_weights_may_be_in_several_files(story: Story, tmp_path: Path) -> None:
    first = tmp_path / "first"
    done(*story.arguments(first))
    second = story.arguments(tmp_path / "second", "--student", str(first), teacher=first)
    done(*second)
    evaluate = ("evaluate", "--task", "SST-2", "--data", str(story.dev), "--model")
    assert done(*evaluate, str(first)).stdout == done(*evaluate, str(first / "model")).stdout
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "config.json").write_text('{"command": "teacher"}')
    refused(*evaluate, str(tmp_path / "unfinished"), message="has no model/ yet")
    sharded = tmp_path / "sharded"
    model = transformers.BertForSequenceClassification.from_pretrained(story.teacher)
    model.save_pretrained(sharded, max_shard_size="100KB")
    transformers.AutoTokenizer.from_pretrained(story.teacher).save_pretrained(sharded)
    assert not (sharded / "model.safetensors").exists()
    binary = tmp_path / "binary"
    shutil.copytree(story.teacher, binary)
    torch.save(load_file(binary / "model.safetensors"), binary / "pytorch_model.bin")
    (binary / "model.safetensors").unlink()
    results = []
    for folder in (story.teacher, sharded, binary):
        output = tmp_path / f"of-{folder.name}"
        done(*story.arguments(output, "--stages", "prediction", teacher=folder))
        results.append(load_file(output / "model" / "model.safetensors"))
    for other in results[1:]:
        assert all(torch.equal(results[0][name], other[name]) for name in results[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_writes_a_checkpoint_and_the_run_goes_on_from_it(story: Story, tmp_path: Path, number: int) -> None:
    output = tmp_path / "out"
    # Enough epochs that the signal comes while training.
    arguments = story.arguments(output, "--epochs", "400", "--stages", "intermediate")
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (output / "metrics.jsonl").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    checkpoint = torch.load(output / "checkpoint.pt", weights_only=True)
    assert 50 <= checkpoint["state"]["step"] < 400 * 9
    assert not (output / "result.json").exists()


def test_a_changed_corpus_is_not_resumed(story: Story, tmp_path: Path) -> None:
    corpus, output = tmp_path / "corpus.txt", tmp_path / "out"
    corpus.write_text("\n".join(row.text_a for row in source_rows(40)) + "\n")
    arguments = (
        *("general", "--corpus", str(corpus), "--teacher", str(story.teacher), "--student", STUDENT),
        *("--max-length", "32", "--output", str(output), *COMMON),
    )
    done(*arguments)
    (output / "result.json").unlink()
    corpus.write_text("other words\n" * 40)
    refused(*arguments, message="was started with a different corpus file")
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n")
    other = [
        str(empty) if one == str(corpus) else str(tmp_path / "b") if one == str(output) else one for one in arguments
    ]
    refused(*other, message="no text to train on")
