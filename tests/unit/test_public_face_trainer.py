"""`import trainer`: lazy, documented, and complete."""

from __future__ import annotations

import doctest
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import trainer
import trainer.inference
from shared.errors import InputError, ModelError, UsageError
from tests.support.models import save_random_model
from tests.support.runs import save_random_classifier, write_general_run, write_task_run, write_teacher_run

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ["a great movie", "the quick brown fox jumps over the lazy dog", "she", "a bad ending , she said"]


def save_named_classifier(folder: Path) -> Path:
    save_random_classifier(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config |= {"id2label": {"0": "negative", "1": "positive"}, "label2id": {"negative": 0, "positive": 1}}
    path.write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_named_classifier(tmp_path_factory.mktemp("named"))


@pytest.fixture(scope="module")
def regressor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_classifier(tmp_path_factory.mktemp("regressor"), labels=1)


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "reviews.tsv"
    rows = [("text", "label"), *zip(TEXTS, ("positive", "negative", "negative", "positive"), strict=True)]
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_all_names_what_is_public_and_every_name_is_documented() -> None:
    assert trainer.__all__ == sorted(trainer.__all__)
    assert set(trainer.__all__) <= set(dir(trainer))
    for name in trainer.__all__:
        value = getattr(trainer, name)
        if name == "__version__":
            assert re.match(r"\d+\.\d+", value)
            continue
        assert value.__module__ == "trainer.inference"
        assert inspect.getdoc(value)
        for member, method in vars(value).items() if inspect.isclass(value) else ():
            assert member.startswith("_") or not callable(method) or inspect.getdoc(method)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        trainer.nothing  # noqa: B018


def test_no_public_name_is_also_a_submodule() -> None:
    # `import trainer.x` would replace the function by the module.
    names = {path.stem for path in (ROOT / "trainer").iterdir()}
    assert not names & set(trainer.__all__)


def test_importing_the_package_loads_nothing() -> None:
    code = (
        "import sys; before = set(sys.modules); import trainer; dir(trainer); "
        "sys.exit(', '.join(sorted(set(sys.modules) - before - {'trainer'})) or 0)"
    )
    allowed = {"__future__", "typing"}
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    loaded = set(finished.stderr.strip().split(", ")) - {""}
    assert {name for name in loaded if name.split(".")[0] not in allowed | sys.stdlib_module_names} == set()


@pytest.mark.parametrize("name", ["load_student", "evaluate"])
def test_the_examples_in_the_docstrings_run(name: str, folder: Path, reviews: Path) -> None:
    function = getattr(trainer, name)
    (test,) = doctest.DocTestFinder(recurse=False).find(
        function, name, module=trainer.inference, globs={"folder": folder, "reviews": reviews}
    )
    assert test.examples
    runner = doctest.DocTestRunner()
    runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


@torch.no_grad()
def test_predictions_are_those_of_plain_transformers_in_any_batch_size(folder: Path) -> None:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    expected = [model(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0].numpy() for text in TEXTS]
    student = trainer.load_student(folder, device="cpu", dtype="fp32")
    for batch_size in (1, 3, 64):
        predictions = student.predict(TEXTS, batch_size=batch_size)
        assert len(predictions) == len(TEXTS)
        for one, probabilities in zip(predictions, expected, strict=True):
            assert list(one.probabilities) == ["negative", "positive"]
            np.testing.assert_allclose(list(one.probabilities.values()), probabilities, atol=1e-5)
            assert one.label == ("negative", "positive")[int(probabilities.argmax())]
            assert one.value is None
    assert student.predict([]) == []


def test_pairs_are_read_as_pairs(folder: Path) -> None:
    student = trainer.load_student(folder, dtype="fp32")
    pair, single = student.predict([("a great movie", "she said")])[0], student.predict(["a great movie she said"])[0]
    assert pair.probabilities != single.probabilities


def test_a_regression_model_predicts_numbers(regressor: Path) -> None:
    student = trainer.load_student(regressor)
    assert student.labels is None
    for one in student.predict(TEXTS):
        assert (one.label, dict(one.probabilities)) == (None, {})
        assert isinstance(one.value, float)


def test_a_run_is_loaded_by_its_output_folder_or_its_model_folder_with_its_length(tmp_path: Path) -> None:
    teacher = write_teacher_run(tmp_path / "teacher")
    run = write_task_run(tmp_path / "run", teacher)
    long = ["the quick brown fox " * 20]
    by_run, by_model = (trainer.load_student(path, dtype="fp32") for path in (run, run / "model"))
    assert by_run.predict(long) == by_model.predict(long)
    assert by_run.predict(long) == trainer.load_student(run, dtype="fp32", max_length=32).predict(long)
    assert by_run.predict(long) != trainer.load_student(run, dtype="fp32", max_length=64).predict(long)
    assert trainer.load_student(teacher).predict(long, batch_size=1)


def test_a_file_is_scored_like_on_the_command_line(folder: Path, reviews: Path, tmp_path: Path) -> None:
    from trainer.config import EvaluateConfig
    from trainer.evaluation import run_command

    options = {"model": str(folder), "data": str(reviews), "text_column": ["text"], "label_column": "label"}
    expected = run_command(EvaluateConfig.build(options)).summary["metrics"]
    found = trainer.evaluate(folder, reviews, text_column="text", label_column="label")
    assert found == expected
    assert next(iter(found)) == "accuracy"
    student = trainer.load_student(folder)
    assert trainer.evaluate(student, reviews, text_column=[0], label_column=1, batch_size=1) == expected
    glue = tmp_path / "dev.tsv"
    glue.write_text("sentence\tlabel\na great movie\t1\nbad acting\t0\n", encoding="utf-8")
    assert list(trainer.evaluate(student, glue, task="sst-2")) == ["accuracy"]


def test_folders_without_a_usable_classifier_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    damaged = save_random_classifier(tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"\xff" * 100)
    unfinished = write_task_run(tmp_path / "open", tmp_path / "nowhere", is_finished=False)
    for folder, message in (
        (tmp_path / "none", "no such folder"),
        (tmp_path / "empty", "it has no config.json"),
        (damaged, "damaged: "),
        (unfinished, "the run has not finished"),
        (save_random_model("bert-uncased", tmp_path / "mlm"), "BertForMaskedLM"),
        (save_random_classifier(tmp_path / "distilbert", kind="distilbert"), "distilbert"),
    ):
        with pytest.raises(ModelError, match=re.escape(message)) as caught:
            trainer.load_student(folder)
        assert str(folder) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_general_student_counts_as_a_classifier_only_if_it_has_one(tmp_path: Path) -> None:
    assert trainer.load_student(write_general_run(tmp_path / "general")).labels is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [({"device": "tpu"}, "device must be one of"), ({"dtype": "fp8"}, "dtype"), ({"max_length": 2}, "max_length")],
)
def test_bad_options_of_loading_are_refused(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        trainer.load_student(folder, **options)


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ("a great movie", UsageError, "not a str"),
        (None, UsageError, "not a NoneType"),
        ([1], InputError, r"texts\[0\] must be a string"),
        (["a", ("b", "c")], InputError, r"texts\[1\] is a pair"),
        ([("a", "b"), ("a", "b", "c")], InputError, r"texts\[1\] must be"),
        ([("a", None)], InputError, r"texts\[0\] must be"),
        (["a", "\ud800"], InputError, r"texts\[1\] contains a lone surrogate"),
    ],
)
def test_bad_texts_are_refused(folder: Path, texts: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        trainer.load_student(folder).predict(texts)


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, True, "8"])
def test_bad_batch_sizes_are_refused(folder: Path, batch_size: Any) -> None:
    with pytest.raises(UsageError, match="batch_size"):
        trainer.load_student(folder).predict(["a"], batch_size=batch_size)


def test_bad_arguments_of_evaluate_are_refused(folder: Path, reviews: Path, tmp_path: Path) -> None:
    columns: dict[str, Any] = {"text_column": "text", "label_column": "label"}
    cases: tuple[tuple[dict[str, Any], type[Exception], str], ...] = (
        ({}, UsageError, "needs task, or both text_column and label_column"),
        ({"text_column": "text"}, UsageError, "needs task"),
        ({"task": "GLUE"}, UsageError, "GLUE"),
        (columns | {"batch_size": 0}, UsageError, "batch"),
        (columns | {"label_column": "stars"}, InputError, "stars"),
        (columns | {"data": tmp_path / "none.tsv"}, InputError, "none.tsv"),
        ({"task": "STS-B"}, ModelError, "needs one number"),
    )
    for options, error, message in cases:
        with pytest.raises(error, match=message) as caught:
            trainer.evaluate(folder, **({"data": reviews} | options))
        assert "\n" not in str(caught.value)
