"""Model folders as people have them: stored in any way, mistyped, damaged, with a tokenizer of another model."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from augment_service.engine.masked_lm import MaskedLM
from augment_service.engine.presence import check_models_exist
from augment_service.engine.vector_files import read_vectors
from shared.errors import ExpectedError, ModelError
from shared.model_folder import model_folder, weight_files
from tests.support.distillation import save_teacher
from tests.support.models import save_random_model
from trainer.any_classifier import load_any_classifier
from trainer.config import EvaluateConfig
from trainer.evaluation import run_command as evaluate
from trainer.export.saved_classifier import load_saved_classifier
from trainer.mlm.model import load_trainable
from trainer.models import fingerprint, fitting_length, load_classifier, load_encoder, load_tokenizer
from trainer.predict.config import PredictConfig
from trainer.predict.models import open_predictor
from trainer.report.model_folder import read_model_folder


@pytest.fixture(scope="module")
def masked_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model("bert-uncased", tmp_path_factory.mktemp("mlm"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("teacher") / "model")


@pytest.fixture
def copy(masked_lm: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(masked_lm, tmp_path / "copy"))


def as_pickle(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def in_parts(folder: Path) -> None:
    from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

    is_classifier = "SequenceClassification" in (folder / "config.json").read_text()
    kind = AutoModelForSequenceClassification if is_classifier else AutoModelForMaskedLM
    model = kind.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(weight_files(folder)) > 1


def as_run(folder: Path) -> None:
    inner = folder / "model"
    inner.mkdir()
    for path in list(folder.iterdir()):
        if path != inner:
            path.rename(inner / path.name)
    (folder / "config.json").write_text(json.dumps({"command": "mlm"}))


def encoder_of(folder: Path) -> Any:
    return load_encoder(str(folder), load_tokenizer(str(folder)))


@pytest.mark.parametrize("store", [as_pickle, in_parts, as_run])
def test_weights_are_read_however_they_are_stored(
    masked_lm: Path, copy: Path, teacher: Path, tmp_path: Path, store: Callable[[Path], None]
) -> None:
    store(copy)
    assert MaskedLM.load(str(copy), "cpu", "fp32").fingerprint() == MaskedLM.load(str(masked_lm), "cpu").fingerprint()
    assert fingerprint(encoder_of(copy)) == fingerprint(encoder_of(masked_lm))
    trainable = load_trainable(str(copy), 0, 0)
    assert trainable.has_head
    stored = Path(shutil.copytree(teacher, tmp_path / "teacher"))
    store(stored)
    assert fingerprint(load_classifier(str(stored))) == fingerprint(load_classifier(str(teacher)))
    exported = load_saved_classifier(str(stored), "--model")
    assert exported.weight_bytes > 4 * exported.num_parameters
    shape = read_model_folder(Path(model_folder(str(stored))))
    assert shape.parameters == exported.num_parameters


def test_code_in_a_pickle_is_not_run(copy: Path, tmp_path: Path) -> None:
    (copy / "model.safetensors").unlink()
    with (copy / "pytorch_model.bin").open("wb") as file:
        pickle.dump({"weight": _Touch(str(tmp_path / "ran"))}, file)
    with pytest.raises(ModelError, match="--mlm"):
        MaskedLM.load(str(copy), "cpu", "fp32")
    assert not (tmp_path / "ran").exists()


class _Touch:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path(self.path),)


def test_a_tokenizer_larger_than_the_model_is_refused_with_both_numbers(
    copy: Path, teacher: Path, tmp_path: Path
) -> None:
    size = len(AutoTokenizer.from_pretrained(copy))
    stored = Path(shutil.copytree(teacher, tmp_path / "teacher"))
    for folder in (copy, stored):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.add_tokens(["[url]"])
        tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match=f"--mlm .* has {size + 1} tokens, but the model has only {size} embeddings"):
        MaskedLM.load(str(copy), "cpu", "fp32")
    with pytest.raises(ModelError, match="tokens, but the model has only"):
        load_saved_classifier(str(stored), "--model")
    model = load_classifier(str(stored))
    with pytest.raises(ModelError, match="tokens, but the model has only"):
        fitting_length(None, 64, model.config, load_tokenizer(str(stored)), str(stored))


def broken_json(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model": {}}')


def wrong_type(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": "large"}))


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:2000])


def not_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def no_model_type(folder: Path) -> None:
    (folder / "config.json").write_text("{}")


def empty_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")


@pytest.mark.parametrize("damage", [broken_json, wrong_type, cut_weights, not_json, no_model_type, empty_pickle])
def test_a_damaged_folder_is_one_line_that_names_it(
    teacher: Path, copy: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    stored = Path(shutil.copytree(teacher, tmp_path / "teacher"))
    damage(copy)
    damage(stored)
    data = tmp_path / "data.csv"
    data.write_text("text,label\na good film,0\na bad film,1\n")
    config = EvaluateConfig.build(
        {"model": str(stored), "data": str(data), "text_column": ("text",), "label_column": "label", "device": "cpu"}
    )
    for load in (
        lambda: MaskedLM.load(str(copy), "cpu", "fp32"),
        lambda: evaluate(config),
        lambda: load_saved_classifier(str(stored), "--model"),
    ):
        with pytest.raises(ModelError) as caught:
            load()
        assert len(str(caught.value).splitlines()) == 1
        assert "--m" in str(caught.value)
        assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "path", ["/no/such/folder", "runs/studnt/model", "./x", "~/x", "a\\b", "hdfs://bucket/model", ""]
)
def test_what_looks_like_a_path_is_not_asked_of_the_hub(path: str) -> None:
    with pytest.raises(ModelError, match=r"--mlm .*no such folder"):
        check_models_exist(path, "embedded")


def test_a_mistyped_name_that_could_be_a_hub_id(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        ModelError, match=r"--mlm modles/bert: no such folder, and no such model in the cache of the Hugging Face hub"
    ):
        check_models_exist("modles/bert", "embedded")
    with pytest.raises(ModelError, match=r"--glove .*no such file"):
        check_models_exist("embedded", str(tmp_path / "glove.txt"))


def test_a_file_or_an_unfinished_run_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"command": "task"}))
    with pytest.raises(ModelError, match="is a file; pass the folder"):
        model_folder(str(tmp_path / "config.json"), "--teacher")
    with pytest.raises(ExpectedError, match="has not finished"):
        model_folder(str(tmp_path), "--teacher")


def test_a_model_without_a_tokenizer_is_refused_not_given_an_empty_one(
    masked_lm: Path, teacher: Path, tmp_path: Path
) -> None:
    for name, source in (("mlm", masked_lm), ("teacher", teacher)):
        shutil.copytree(source, tmp_path / name)
        for file in [*(tmp_path / name).glob("tokenizer*"), *(tmp_path / name).glob("vocab*")]:
            file.unlink()
    for read in (
        lambda: load_tokenizer(str(tmp_path / "teacher")),
        lambda: MaskedLM.load(str(tmp_path / "mlm"), "cpu", "fp32"),
        lambda: load_saved_classifier(str(tmp_path / "teacher"), "--model"),
    ):
        with pytest.raises(ModelError, match="tokenizer"):
            read()


def test_an_adapter_is_named_as_one(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"is an adapter.*merge_and_unload"):
        load_classifier(str(tmp_path))


Weights = dict[str, torch.Tensor]
LOADERS: tuple[tuple[str, Callable[[Path], object]], ...] = (
    ("masked_lm", lambda folder: MaskedLM.load(str(folder), "cpu", "fp32")),
    ("masked_lm", lambda folder: load_trainable(str(folder), 0, 0)),
    ("masked_lm", encoder_of),
    ("masked_lm", lambda folder: load_classifier(str(folder), num_labels=3)),
    ("teacher", lambda folder: load_classifier(str(folder))),
    ("teacher", lambda folder: load_any_classifier(str(folder), device="cpu", dtype="fp32")),
    ("teacher", lambda folder: load_saved_classifier(str(folder), "--model")),
)
LAYER = "bert.encoder.layer.1.intermediate.dense.weight"


def not_a_number(weights: Weights) -> Weights:
    weights[LAYER][3, 5] = float("nan")
    return weights


def without_a_layer(weights: Weights) -> Weights:
    return {name: value for name, value in weights.items() if name != LAYER}


def of_another_shape(weights: Weights) -> Weights:
    return weights | {LAYER: weights[LAYER][:-1].clone()}


def with_another_layer(weights: Weights) -> Weights:
    return weights | {LAYER.replace("layer.1", "layer.9"): weights[LAYER].clone()}


def all_zero(weights: Weights) -> Weights:
    return {name: torch.zeros_like(value) for name, value in weights.items()}


def quantised_without_a_scale(weights: Weights) -> Weights:
    return weights | {LAYER: (weights[LAYER] * 100).round().to(torch.int8)}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (all_zero, "all weights are zero"),
        (quantised_without_a_scale, "model.safetensors has int8 weights, but config.json has no quantization_config"),
        (not_a_number, f"1 of [0-9]+ weights in .*{LAYER.removeprefix('bert.')} are NaN or infinite"),
        (without_a_layer, f"lacks weights such as .*{LAYER.removeprefix('bert.')}"),
        (of_another_shape, f"{LAYER.removeprefix('bert.')} has shape .* in the file, but .* according to config.json"),
        (with_another_layer, "has weights of a layer that config.json does not describe, such as .*encoder.layer.9"),
    ],
)
@pytest.mark.parametrize("loader", range(len(LOADERS)))
def test_weights_that_are_damaged_or_missing_are_never_replaced_by_random_ones(
    masked_lm: Path, teacher: Path, tmp_path: Path, damage: Callable[[Weights], Weights], message: str, loader: int
) -> None:
    source, load = LOADERS[loader]
    folder = shutil.copytree({"masked_lm": masked_lm, "teacher": teacher}[source], tmp_path / "model")
    save_file(damage(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=message) as caught:
        load(folder)
    assert str(folder) in str(caught.value)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
PAGE = '<!DOCTYPE html>\n<html lang="en"><head><title>404: not found</title></head></html>\n'


@pytest.mark.parametrize(("content", "what"), [(POINTER, "is a Git LFS pointer.*git lfs pull"), (PAGE, "is an HTML")])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "pytorch_model.bin"])
def test_what_was_not_fetched_is_named_by_whoever_loads_a_model(
    masked_lm: Path, teacher: Path, tmp_path: Path, content: str, what: str, name: str
) -> None:
    for number, (source, load) in enumerate(LOADERS):
        folder = shutil.copytree({"masked_lm": masked_lm, "teacher": teacher}[source], tmp_path / str(number))
        if name == "pytorch_model.bin":
            (folder / "model.safetensors").unlink()
        (folder / name).write_text(content)
        with pytest.raises(ModelError, match=f"{folder}: {name} {what}"):
            load(folder)
        with pytest.raises(ModelError, match=f"--mlm {folder}: {name} {what}"):
            check_models_exist(str(folder), "embedded")


@pytest.mark.parametrize(("content", "what"), [(POINTER, "is a Git LFS pointer.*git lfs pull"), (PAGE, "is an HTML")])
def test_word_vectors_that_were_not_fetched_are_named(tmp_path: Path, content: str, what: str) -> None:
    path = tmp_path / "glove.txt"
    path.write_text(content)
    (tmp_path / "folder").mkdir()
    for name in ("x_index.parquet", "x_emb.npy"):
        (tmp_path / "folder" / name).write_text(content)
    for one, named in ((path, f"--glove {path}"), (tmp_path / "folder", f"--glove {tmp_path}/folder.*x_index.parquet")):
        with pytest.raises(ModelError, match=f"{named} {what}"):
            read_vectors(str(one), None)
        with pytest.raises(ModelError, match=f"{named} {what}"):
            check_models_exist("embedded", str(one))


def test_an_onnx_file_that_was_not_fetched_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text(POINTER)
    config = {"model": str(path), "data": ("x.csv",), "text_column": ("text",), "output": "y.csv"}
    with pytest.raises(ModelError, match=f"--model {path} is a Git LFS pointer"):
        open_predictor(PredictConfig.build(config))


@pytest.mark.parametrize("loader", range(len(LOADERS)))
def test_weights_under_a_wrong_name_or_without_content_are_named(
    masked_lm: Path, teacher: Path, tmp_path: Path, loader: int
) -> None:
    source, load = LOADERS[loader]
    original = {"masked_lm": masked_lm, "teacher": teacher}[source]
    empty, pickled, renamed_ = (shutil.copytree(original, tmp_path / name) for name in ("empty", "pickled", "renamed"))
    (empty / "model.safetensors").write_bytes(b"")
    torch.save(load_file(original / "model.safetensors"), pickled / "model.safetensors")
    (renamed_ / "model.safetensors").rename(renamed_ / "pytorch_model.bin")
    for folder, message in (
        (empty, "model.safetensors is empty"),
        (pickled, "model.safetensors is a PyTorch file: rename it to pytorch_model.bin"),
        (renamed_, "pytorch_model.bin is a safetensors file: rename it to model.safetensors"),
    ):
        with pytest.raises(ModelError, match=f"{folder}: {message}"):
            load(folder)
