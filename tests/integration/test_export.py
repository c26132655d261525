"""`trainer export`: ONNX logits equal PyTorch's, int8 reports how much they differ, and bad input gives one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers

from shared.errors import OutputError
from tests.support.models import save_random_model
from tests.support.runs import save_random_classifier
from trainer.export.check import check_equal_logits
from trainer.export.command import run_command as export
from trainer.export.config import ExportConfig
from trainer.export.saved_classifier import load_saved_classifier


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    kinds = {"bert": save_random_classifier(root / "bert", labels=3, hidden=64)}
    kinds["distilbert"] = save_random_classifier(root / "distilbert", kind="distilbert")
    kinds["other"] = save_random_classifier(root / "other", labels=3, hidden=32)
    return kinds


@pytest.fixture(scope="module")
def exported(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("exported") / "new" / "bert.onnx"
    export(ExportConfig.build({"model": str(models["bert"]), "format": "onnx", "output": str(output)}))
    return output


def answers(path: Path, batch: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    return np.asarray(session.run(None, {name: batch[name] for name in names})[0])


@torch.no_grad()
def test_onnx_logits_equal_pytorch_for_any_batch_and_length(models: dict[str, Path], exported: Path) -> None:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(models["bert"]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(models["bert"])
    for texts in (["a"], ["a great movie", "she"], ["the quick brown fox " * 8, "a bad ending", "the"] * 5):
        batch = dict(tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="np"))
        wanted = model(**{name: torch.from_numpy(array) for name, array in batch.items()}).logits.numpy()
        found = answers(exported, batch)
        assert found.shape == wanted.shape == (len(texts), 3)
        assert np.abs(found - wanted).max() < 1e-5 < wanted.std()


def test_the_facts_are_written_next_to_the_file(models: dict[str, Path], exported: Path) -> None:
    facts = json.loads(exported.with_suffix(".json").read_text())
    assert facts["opset"] == onnx.load(exported).opset_import[0].version == 18
    assert facts["bytes"] == exported.stat().st_size
    assert facts["check"]["max_logit_difference"] < 1e-4
    assert [1, 64] in facts["check"]["shapes"]
    assert facts["max_length"] == 64
    assert sorted(path.name for path in exported.parent.iterdir()) == ["bert.json", "bert.onnx"]


def test_a_file_of_another_model_fails_the_check(models: dict[str, Path], exported: Path) -> None:
    with pytest.raises(OutputError, match=r"the ONNX logits differ from PyTorch's by .*; the file was discarded"):
        check_equal_logits(load_saved_classifier(str(models["other"]), "--model"), exported, 32, seed=0)


def test_int8_is_smaller_and_reports_its_agreement(models: dict[str, Path], exported: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("a great movie with a good plot\nbad acting\n\nthe dog sat near a river\n", encoding="utf-8")
    output = tmp_path / "bert.onnx"
    options = {"model": str(models["bert"]), "format": "int8", "output": str(output), "data": str(texts)}
    result = export(ExportConfig.build(options))
    facts = json.loads(output.with_suffix(".json").read_text())
    assert facts["bytes"] < 0.6 * facts["bytes_fp32_onnx"]
    assert facts["agreement"]["rows"] == 3
    assert facts["agreement"]["inputs"] == str(texts)
    assert facts["agreement"]["same_class"] in (0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1)
    assert 0 < facts["agreement"]["mean_logit_difference"] <= facts["agreement"]["max_logit_difference"] < 1
    assert "same class as fp32 on" in result.text
    weights = {one.data_type for one in onnx.load(output).graph.initializer}
    assert onnx.TensorProto.INT8 in weights


def test_a_model_without_token_types_exports_through_the_command_line(models: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "distilbert.onnx"
    options = ["export", "--model", str(models["distilbert"]), "--format", "onnx", "--output", str(output)]
    assert run_in_process(options) == (0, "")
    assert json.loads(output.with_suffix(".json").read_text())["check"]["max_logit_difference"] < 1e-4
    assert [one.name for one in onnx.load(output).graph.input] == ["input_ids", "attention_mask"]


def test_bad_input_gives_one_line(models: dict[str, Path], tmp_path: Path) -> None:
    masked_lm = save_random_model("bert-uncased", tmp_path / "mlm")
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    good = ["--model", str(models["bert"])]
    for arguments, code, message in (
        (["--model", str(tmp_path / "none")], 1, "no such folder"),
        (["--model", str(masked_lm)], 1, "BertForMaskedLM, not a sequence classification model"),
        ([*good, "--output", str(tmp_path)], 2, "name a file"),
        ([*good, "--opset", "7"], 2, "--opset"),
        ([*good, "--text-column", "0"], 2, "pass a file with --data"),
        ([*good, "--data", str(empty)], 1, "contains no text"),
        ([*good, "--data", str(tmp_path / "none.csv"), "--text-column", "0"], 1, "none.csv"),
        ([*good, "--format", "gguf"], 2, "--format"),
    ):
        options = ["export", "--format", "int8", "--output", str(tmp_path / "out" / "x.onnx"), *arguments]
        failed = run_in_process(options)
        assert failed[0] == code, (arguments, failed)
        assert message in failed[1]
        assert failed[1].count("\n") == 1
        assert not (tmp_path / "out" / "x.onnx").exists()


def run_in_process(options: list[str]) -> tuple[int, str]:
    """Exit code and standard error of the command line, run in this process to save its start-up time."""
    import contextlib
    import io

    from trainer.cli import main

    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
        code = main(options)
    return code, stderr.getvalue()
