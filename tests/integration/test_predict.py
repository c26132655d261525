"""`trainer predict`: answers equal plain transformers', in the order of the input, with everything the input had."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers

import trainer
from shared.errors import ModelError
from tests.support.classifiers import save_classifier_of
from tests.support.command import call_main
from tests.support.distillation import save_teacher, source_rows
from trainer.predict.command import run_command as predict
from trainer.predict.config import PredictConfig

TEXTS = [row.text_a for row in source_rows(30)]


def plain_logits(folder: Path, texts: list[str], seconds: list[str] | None = None) -> Any:
    """One text at a time through plain transformers."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = []
    with torch.no_grad():
        for number, text in enumerate(texts):
            pair = (text,) if seconds is None else (text, seconds[number])
            encoded = tokenizer(
                *pair, return_tensors="pt", truncation=True, max_length=64, return_token_type_ids=seconds is not None
            )
            rows.append(model(**encoded).logits[0])
    return torch.stack(rows).numpy()


def softmax(logits: Any) -> Any:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def run(model: Path, data: Path, output: Path, *more: str, code: int = 0) -> Any:
    columns = () if "--task" in more or "--text-column" in more else ("--text-column", "text")
    arguments = ("predict", "--model", str(model), "--data", str(data), "--output", str(output), *columns, *more)
    finished = call_main(*arguments, "--dtype", "fp32", "--threads", "1", program="trainer")
    assert finished.returncode == code, finished.stderr
    return finished


def save_rows(path: Path, texts: list[str]) -> Path:
    rows = [{"id": f"row-{index}", "text": text, "stars": index % 5} for index, text in enumerate(texts)]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["id", "text", "stars"])
            writer.writeheader()
            writer.writerows(rows)
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("predict")


@pytest.fixture(scope="module")
def teacher(folder: Path) -> Path:
    return save_teacher(folder / "teacher")


@pytest.mark.parametrize("kind", ["roberta", "deberta-v2", "distilbert", "electra", "bert"])
def test_every_architecture_answers_as_plain_transformers(folder: Path, teacher: Path, kind: str) -> None:
    model = teacher if kind == "bert" else save_classifier_of(kind, folder / kind)
    data = save_rows(folder / "own.csv", TEXTS)
    run(model, data, folder / f"{kind}.csv", "--batch-size", "4", "--chunk-rows", "7")
    rows = read_rows(folder / f"{kind}.csv")
    assert [(row["id"], row["text"], row["stars"]) for row in rows] == [
        (f"row-{index}", text, str(index % 5)) for index, text in enumerate(TEXTS)
    ]
    expected = softmax(plain_logits(model, TEXTS))
    names = ("0", "1") if kind == "bert" else ("negative", "positive")
    found = np.asarray([[float(row[f"probability_{name}"]) for name in names] for row in rows])
    assert found == pytest.approx(expected, abs=2e-5)
    assert [row["predicted_label"] for row in rows] == [names[index] for index in expected.argmax(-1)]
    assert np.ptp(found[:, 0]) > 1e-3, "the answer must depend on the text"


@pytest.mark.parametrize("written", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("read", [".csv", ".jsonl", ".parquet"])
def test_every_format_in_and_out_carries_all_columns(folder: Path, teacher: Path, read: str, written: str) -> None:
    texts = [*TEXTS[:4], 'a "quoted", text\nof two lines', "tab\tand 映画"]
    output = folder / f"from{read}{written}"
    run(teacher, save_rows(folder / f"formats{read}", texts), output)
    rows = read_rows(output)
    assert [(row["id"], row["text"]) for row in rows] == [(f"row-{index}", text) for index, text in enumerate(texts)]
    assert [int(row["stars"]) for row in rows] == [0, 1, 2, 3, 4, 0]
    for row in rows:
        assert float(row["probability_0"]) + float(row["probability_1"]) == pytest.approx(1, abs=1e-5)


def test_pairs_and_numbers(folder: Path) -> None:
    model = save_teacher(folder / "scores", labels=1)
    data = folder / "pairs.tsv"
    lines = [f"{first}\t{second}" for first, second in zip(TEXTS, reversed(TEXTS), strict=True)]
    data.write_text("\n".join(["left\tright", *lines]) + "\n", encoding="utf-8")
    run(model, data, folder / "scores.jsonl", "--text-column", "left", "right")
    rows = read_rows(folder / "scores.jsonl")
    expected = plain_logits(model, TEXTS, TEXTS[::-1])[:, 0]
    assert [row["predicted_value"] for row in rows] == pytest.approx(expected.tolist(), abs=1e-5)
    assert [row["right"] for row in rows] == TEXTS[::-1]


def test_bad_rows_are_set_aside_with_place_and_reason(folder: Path, teacher: Path) -> None:
    data = folder / "bad.csv"
    data.write_bytes(b"text,id\na good film,1\n,2\nbroken \xff byte,3\nthe end,4\nthree,cells,here\n")
    finished = run(teacher, data, folder / "bad.out.csv")
    assert [row["id"] for row in read_rows(folder / "bad.out.csv")] == ["1", "4"]
    aside = [json.loads(line) for line in (folder / "bad.out.csv.quarantine.jsonl").read_text().splitlines()]
    assert [one["position"] for one in aside] == [1, 2, 4]
    assert [one["where"].rpartition("line ")[2] for one in aside] == ["3", "4", "6"]
    assert "empty text" in aside[0]["reason"]
    assert "3 rows were set aside" in finished.stdout
    data.write_text("text,id\na good film,1\n", encoding="utf-8")
    run(teacher, data, folder / "bad.out.csv")
    assert not (folder / "bad.out.csv.quarantine.jsonl").exists()


def test_an_interrupted_run_leaves_the_previous_file(folder: Path, teacher: Path, monkeypatch: Any) -> None:
    data, output = save_rows(folder / "stop.csv", TEXTS), folder / "stop.out.parquet"
    run(teacher, data, output)
    before = output.read_bytes()
    calls = []

    def stop(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    from trainer.inference import Classifier

    original = Classifier.logits
    monkeypatch.setattr(Classifier, "logits", stop)
    config = PredictConfig(
        model=str(teacher), data=(str(data),), output=str(output), text_column=("text",), chunk_rows=5
    )
    with pytest.raises(KeyboardInterrupt):
        predict(config)
    assert output.read_bytes() == before
    assert [path.name for path in folder.iterdir() if "partial" in path.name] == []


def test_an_onnx_file_answers_as_the_model_it_came_from(folder: Path, teacher: Path) -> None:
    data = save_rows(folder / "onnx.csv", TEXTS)
    file = folder / "deployed" / "model.onnx"
    finished = call_main(
        *("export", "--model", str(teacher), "--format", "onnx", "--output", str(file), "--max-length", "48"),
        program="trainer",
    )
    assert finished.returncode == 0, finished.stderr
    run(teacher, data, folder / "torch.jsonl")
    run(file, data, folder / "onnx.jsonl")
    for one, other in zip(read_rows(folder / "torch.jsonl"), read_rows(folder / "onnx.jsonl"), strict=True):
        assert one["predicted_label"] == other["predicted_label"]
        assert one["probability_1"] == pytest.approx(other["probability_1"], abs=1e-4)
    (file.with_suffix(".json")).unlink()
    failed = run(file, data, folder / "onnx.jsonl", code=1)
    assert "name the folder of the model's tokenizer with --tokenizer" in failed.stderr
    run(file, data, folder / "other.jsonl", "--tokenizer", str(teacher))
    assert read_rows(folder / "other.jsonl") == read_rows(folder / "onnx.jsonl")


def test_a_submission_has_the_benchmarks_form(folder: Path) -> None:
    labels = ("contradiction", "entailment", "neutral")
    model = save_classifier_of("distilbert", folder / "mnli", labels)
    names = "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse"
    data = folder / "test_mismatched.tsv"
    header = [*names.split(), "sentence1", "sentence2"]
    lines = ["\t".join([str(index), *"abcdefg", text, "a film"]) for index, text in enumerate(TEXTS)]
    data.write_text("\n".join(["\t".join(header), *lines]) + "\n", encoding="utf-8")
    run(model, data, folder / "MNLI-mm.tsv", "--task", "MNLI", "--submission")
    rows = read_rows(folder / "MNLI-mm.tsv")
    assert [row["index"] for row in rows] == [str(index) for index in range(len(TEXTS))]
    expected = plain_logits(model, TEXTS, ["a film"] * len(TEXTS)).argmax(-1)
    assert [row["prediction"] for row in rows] == [labels[index] for index in expected]


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("--output", "answers.xlsx"), 2, "must end in .csv, .tsv, .jsonl, .parquet"),
        (("--output", "hdfs://node/answers.csv"), 2, "an output must be a local path"),
        (("--model", "/nowhere"), 1, "--model /nowhere"),
        (("--model", "/nowhere.onnx"), 1, "/nowhere.onnx: no such file"),
        (("--text-column", "body"), 1, "--text-column body"),
        (("--data", "/nowhere.csv"), 1, "/nowhere.csv"),
        (("--submission",), 2, "--submission needs --task"),
        (("--tokenizer", "x"), 2, "--tokenizer is only for .onnx files"),
    ],
)
def test_wrong_use_is_one_clear_line(
    folder: Path, teacher: Path, more: tuple[str, ...], code: int, message: str
) -> None:
    options = {"--model": str(teacher), "--data": str(save_rows(folder / "usage.csv", TEXTS)), "--text-column": "text"}
    options["--output"] = str(folder / "usage.out.csv")
    flags = dict.fromkeys(more[::2]) and {flag: (more[1] if len(more) > 1 else None) for flag in more[::2]}
    arguments = [word for pair in (options | flags).items() for word in pair if word is not None]
    finished = call_main("predict", *arguments, program="trainer")
    assert finished.returncode == code, finished.stderr
    assert message in finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.stderr


def test_columns_of_the_input_are_not_overwritten(folder: Path, teacher: Path) -> None:
    data = save_rows(folder / "twice.csv", TEXTS)
    run(teacher, data, folder / "once.csv")
    failed = run(teacher, folder / "once.csv", folder / "again.csv", code=2)
    assert "already has a column predicted_label; rename the new columns with --prefix" in failed.stderr
    run(teacher, folder / "once.csv", folder / "again.csv", "--prefix", "second_")
    rows = read_rows(folder / "again.csv")
    assert [row["second_predicted_label"] for row in rows] == [row["predicted_label"] for row in rows]
    same = run(teacher, data, data, code=2)
    assert "is one of the files of --data" in same.stderr


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_values_that_python_cannot_hold_are_written_or_refused_in_one_line(tmp_path: Path, suffix: str) -> None:
    model = save_teacher(tmp_path / "model")
    far, second = pa.array([10**7, 0], pa.date32()), pa.array([10**18, 0], pa.timestamp("s"))
    months = pa.array([(1, 2, 3)] * 2, pa.month_day_nano_interval())
    for column, is_text, in_parquet in ((far, "29349-01-26", True), (second, "", False), (months, "", False)):
        table = pa.table({"text": ["good", "bad"], "x": column})
        with pa.ipc.new_file(str(tmp_path / "x.arrow"), table.schema) as file:
            file.write_table(table)
        output = tmp_path / f"answers.{suffix}"
        finished = call_main(
            *("predict", "--model", str(model), "--data", str(tmp_path / "x.arrow"), "--output", str(output)),
            *("--text-column", "text", "--dtype", "fp32", "--threads", "1"),
            program="trainer",
        )
        assert "bug" not in finished.stderr
        if finished.returncode:
            assert "column x" in finished.stderr
            assert not in_parquet
        elif suffix != "parquet":
            assert is_text in output.read_text(encoding="utf-8")
        else:
            assert in_parquet


def test_answers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    folder = save_teacher(tmp_path / "model")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    data = save_rows(tmp_path / "x.csv", TEXTS[:4])
    with torch.no_grad():
        model.bert.pooler.dense.bias.fill_(100.0)
        model.classifier.weight.fill_(3e38)  # finite, but their sum is not
    model.save_pretrained(folder)
    finished = run(folder, data, tmp_path / "answers.csv", code=1)
    assert "not finite" in finished.stderr
    assert not (tmp_path / "answers.csv").exists()
    with pytest.raises(ModelError, match="not finite"):
        trainer.load_student(folder).predict(["a text"])
    columns = ("--text-column", "text", "--label-column", "label")
    labelled = tmp_path / "labelled.csv"
    labelled.write_text("text,label\n" + "".join(f"{text},{number % 2}\n" for number, text in enumerate(TEXTS[:4])))
    score = ("evaluate", "--model", str(folder), "--data", str(labelled), *columns)
    finished = call_main(*score, program="trainer")
    assert finished.returncode == 1
    assert f"--model {folder} returns logits that are not finite, for example for" in finished.stderr.splitlines()[-1]
    with torch.no_grad():
        model.classifier.bias[0] = float("nan")
    model.save_pretrained(folder)
    for finished in (run(folder, data, tmp_path / "answers.csv", code=1), call_main(*score, program="trainer")):
        assert finished.returncode == 1
        assert "weights in classifier.bias are NaN or infinite" in finished.stderr.splitlines()[-1]
